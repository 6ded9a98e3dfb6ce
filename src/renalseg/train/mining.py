"""Hard example mining over cases: those with a high running loss are drawn more often (method notes, section 4).

The other kind, over voxels, is the top-k cross-entropy of ``train.loss``.
"""

import numpy as np
from numpy.typing import NDArray

MOMENTUM = 0.7
"""Weight of the past in a case's running loss."""


class RunningLoss:
    """The running loss of each case; NaN for a case that was not seen yet."""

    def __init__(self, cases: int, values: list[float | None] | None = None) -> None:
        """Starts unseen, or from what ``as_list`` gave."""
        self.values: NDArray[np.float64] = np.full(cases, np.nan)
        if values is not None:
            self.values[:] = [np.nan if v is None else v for v in values]

    def update(self, losses: NDArray[np.float64]) -> None:
        """Takes in the losses of an epoch, float64 [case], NaN where a case was not drawn."""
        seen = ~np.isnan(losses)
        old = np.where(np.isnan(self.values), losses, self.values)
        self.values[seen] = (MOMENTUM * old + (1 - MOMENTUM) * losses)[seen]

    def as_list(self) -> list[float | None]:
        """JSON-ready; floats come back bit for bit."""
        return [None if np.isnan(v) else float(v) for v in self.values]


def draw_order(running: RunningLoss, left_out: float, generator: np.random.Generator) -> list[int]:
    """The cases of one epoch in random order, each at most once.

    With ``left_out`` 0 all of them. Otherwise that share is left out: cases are drawn without replacement with
    probabilities proportional to their running loss (Efraimidis & Spirakis 2006, doi:10.1016/j.ipl.2005.11.003), so
    easy ones miss more epochs. Cases not seen yet count as the hardest.
    """
    cases = len(running.values)
    order = generator.permutation(cases)
    kept = max(1, cases - int(left_out * cases))
    if kept == cases:
        return [int(i) for i in order]
    hardest = np.nanmax(running.values) if not np.isnan(running.values).all() else 1.0
    weights = np.maximum(np.where(np.isnan(running.values), hardest, running.values), 1e-6)
    keys = np.log(generator.uniform(1e-12, 1.0, cases)) / weights
    chosen = set(np.argsort(-keys, kind="stable")[:kept].tolist())
    return [int(i) for i in order if int(i) in chosen]
