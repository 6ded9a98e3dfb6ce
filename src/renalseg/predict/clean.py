"""Step 7: components of the union that are too small to be a kidney are dropped (paper 2.3, as settled)."""

import numpy as np
from numpy.typing import NDArray

from renalseg.config import Clean
from renalseg.core.labels import BACKGROUND
from renalseg.image.components import Component, drop_small


def clean(
    labels: NDArray[np.uint8], voxel_mm3: float, rule: Clean
) -> tuple[NDArray[np.uint8], list[Component], list[Component]]:
    """Applies ``rule`` to the union of all labels of uint8 [z, y, x], never per class: that would erase small tumors.

    Returns:
        The cleaned labels, the components kept and those dropped, largest first.
    """
    keep, kept, dropped = drop_small(labels > BACKGROUND, voxel_mm3, rule.min_voxels, rule.min_mm3)
    return np.where(keep, labels, BACKGROUND).astype(np.uint8), kept, dropped
