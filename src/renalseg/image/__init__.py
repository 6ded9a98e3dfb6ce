"""Array maths: no files, no networks."""
