"""Data types, the label table and errors. NumPy only: nothing here touches files or networks."""
