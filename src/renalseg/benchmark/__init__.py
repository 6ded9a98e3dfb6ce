"""What a case costs on this machine: seconds by step, memory, FLOPs, and the share of the machine's limit."""

from renalseg.benchmark.drawn import CASES, IN_PLANE, PIXEL_MM, draw_ct, untrained
from renalseg.benchmark.limits import matrix_rate, network_tflop
from renalseg.benchmark.measure import Result, measure_case
from renalseg.benchmark.table import as_markdown

__all__ = [
    "CASES",
    "IN_PLANE",
    "PIXEL_MM",
    "Result",
    "as_markdown",
    "draw_ct",
    "matrix_rate",
    "measure_case",
    "network_tflop",
    "untrained",
]
