"""The method section of the paper, in order; ``pipeline`` chains the steps."""
