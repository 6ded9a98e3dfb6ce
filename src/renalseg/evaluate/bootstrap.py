"""How sure a mean over cases is: its percentile bootstrap interval.

Source: Efron 1979, doi:10.1214/aos/1176344552. Cases are drawn with replacement as often as there are cases, and
the mean is taken, many times over; the interval lies between two percentiles of these means. It says how far the mean
would move with other cases of the same kind. It says nothing about training once more, nor about other kinds of scans.
"""

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20231008
"""Fixed, so that the same scores always have the same interval."""

_CELLS = 4_000_000
"""Counts held in memory at a time."""


def mean_interval(
    rows: NDArray[np.float64], confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """The interval of the mean over cases, each column by itself, all from the same draws of cases.

    Args:
        rows: float64 [case, column]; at least one case.
        confidence: the share of the means that lies inside, 0 to 1.
        resamples: how many times cases are drawn.
        seed: of the draws.

    Returns:
        float64 [2, column]: lower and upper ends. One case alone: its own values, twice.
    """
    n = len(rows)
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // n)
    means = []
    for start in range(0, resamples, at_once):
        # How often each case is drawn is all that the mean depends on.
        counts = generator.multinomial(n, np.full(n, 1 / n), size=min(at_once, resamples - start))
        means.append(counts @ rows / n)
    tail = (1 - confidence) / 2
    ends: NDArray[np.float64] = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return ends
