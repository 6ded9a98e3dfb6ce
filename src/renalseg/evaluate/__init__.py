"""The official KiTS23 metrics."""
