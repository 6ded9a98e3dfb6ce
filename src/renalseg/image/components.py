"""Connected components (26-connected, cc3d as in the paper) that are too small to be a kidney."""

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Component:
    """One connected component: its size and the centre of its voxels."""

    voxels: int
    volume_mm3: float
    centre: tuple[float, float, float]
    """Index (z, y, x) of the centroid."""


def drop_small(
    mask: NDArray[np.bool_], voxel_mm3: float, min_voxels: int, min_mm3: float
) -> tuple[NDArray[np.bool_], list[Component], list[Component]]:
    """Removes components smaller than either limit from ``mask`` [z, y, x].

    Returns:
        The cleaned mask, the components that were kept and those that were dropped, largest first.
    """
    if not mask.any():
        return mask, [], []
    labelled = cc3d.connected_components(mask, connectivity=26)
    statistics = cc3d.statistics(labelled)
    counts = np.asarray(statistics["voxel_counts"])
    keep = (counts >= min_voxels) & (counts * voxel_mm3 >= min_mm3)
    keep[0] = False
    order = [i for i in np.argsort(-counts, kind="stable") if i != 0 and counts[i] > 0]
    found = {i: _component(int(counts[i]), voxel_mm3, statistics["centroids"][i]) for i in order}
    return keep[labelled], [found[i] for i in order if keep[i]], [found[i] for i in order if not keep[i]]


def _component(voxels: int, voxel_mm3: float, centre: NDArray[np.float64]) -> Component:
    z, y, x = (round(float(c), 1) for c in centre)
    return Component(voxels, voxels * voxel_mm3, (z, y, x))
