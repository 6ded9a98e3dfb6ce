"""``Volume``: an image in the one orientation that the package works in, and the way back to the file's own grid.

Inside, every array is ``[z, y, x]`` with the index growing towards the patient's inferior, posterior and left side
(axis codes I, P, L, as KiTS23 stores its files). So ``array[z]`` shows an axial slice as radiologists look at it:
anterior at the top, the patient's left on the right. World coordinates are NIfTI's: mm, right-anterior-superior.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import nibabel.orientations as nio
import numpy as np
from numpy.typing import NDArray

from renalseg.core.errors import GeometryError

CANONICAL_AXES = ("I", "P", "L")
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 50.0


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a stored file: what has to come back unchanged with the labels.

    Attributes:
        shape: voxels along the stored axes (i, j, k).
        affine: float64 [4, 4], stored index (i, j, k, 1) to RAS mm.
        nifti_fields: the geometry fields of a NIfTI header, carried verbatim; empty for other formats.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    nifti_fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise GeometryError(f"the affine is not a finite 4 x 4 matrix: {affine.tolist()}")
        spacing = spacing_of(affine)
        if not all(MIN_SPACING_MM <= s <= MAX_SPACING_MM for s in spacing):
            listed = " x ".join(f"{s:g}" for s in spacing)
            raise GeometryError(
                f"the voxel spacing {listed} mm is not plausible (each of {MIN_SPACING_MM} to {MAX_SPACING_MM} mm)"
            )
        if abs(np.linalg.det(affine[:3, :3] / np.array(spacing))) < 1e-3:
            raise GeometryError("the affine is singular: its axes do not span space")
        object.__setattr__(self, "affine", affine)


@dataclass(frozen=True)
class Volume:
    """A CT volume or a label map in canonical orientation.

    Attributes:
        array: [z, y, x], growing towards inferior, posterior, left. CT is in HU.
        affine: float64 [4, 4], index (z, y, x, 1) to RAS mm.
        grid: the stored grid that ``stored`` returns to.
        name: the case's name, used for output files.
        warnings: what had to be repaired or assumed while reading, in sentences.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    grid: Grid
    name: str = "volume"
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_stored(
        cls, array: NDArray[Any], grid: Grid, name: str = "volume", warnings: tuple[str, ...] = ()
    ) -> "Volume":
        """Turns an array in stored axis order (i, j, k) into the canonical orientation; no voxel value changes.

        Raises:
            GeometryError: the array is not 3D or its shape is not the grid's.
        """
        if array.shape != grid.shape:
            raise GeometryError(f"the array has shape {array.shape}, its grid {grid.shape}")
        turn = _turn(grid.affine)
        affine = grid.affine @ nio.inv_ornt_aff(turn, grid.shape)
        return cls(nio.apply_orientation(array, turn), affine, grid, name, warnings)

    @classmethod
    def from_array(cls, array: NDArray[Any], spacing_mm: tuple[float, float, float], name: str = "volume") -> "Volume":
        """Wraps an array that already is ``[z, y, x]`` in canonical orientation; ``spacing_mm`` is (z, y, x)."""
        z, y, x = spacing_mm
        affine = np.array([[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
        return cls.from_stored(array, Grid(_shape3(array.shape), affine), name)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (z, y, x) in mm."""
        return spacing_of(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return _shape3(self.array.shape)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel in mm3, exact for sheared grids too."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def with_array(self, array: NDArray[Any]) -> "Volume":
        """The same grid with other values, e.g. labels; ``array`` is [z, y, x] of the same shape."""
        if array.shape != self.array.shape:
            raise GeometryError(f"{self.name}: an array of shape {array.shape} does not fit the grid {self.shape}")
        return replace(self, array=array)

    def stored(self) -> NDArray[Any]:
        """The array in the stored axis order (i, j, k) of ``grid``."""
        back = nio.ornt_transform(_canonical(), nio.io_orientation(self.grid.affine))
        stored: NDArray[Any] = nio.apply_orientation(self.array, back)
        return stored

    def same_grid(self, other: "Volume", tolerance_mm: float = 1e-3) -> bool:
        """Whether both have one shape and every corner voxel lies within ``tolerance_mm`` of its counterpart."""
        if self.shape != other.shape:
            return False
        corners = np.array(
            [[z, y, x, 1] for z in (0, self.shape[0]) for y in (0, self.shape[1]) for x in (0, self.shape[2])]
        )
        distance = np.abs((self.affine - other.affine) @ corners.T)[:3]
        return bool(distance.max() <= tolerance_mm)


@dataclass(frozen=True)
class Segmentation:
    """The result for one case.

    Attributes:
        labels: uint8 label map (see ``core.labels``) on the grid of the input.
        record: what was done: timings, memory, warnings, dropped components, version, hashes. JSON-ready.
    """

    labels: Volume
    record: dict[str, Any]


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Lengths in mm of the three index axes of a [4, 4] affine."""
    a, b, c = (float(np.sqrt((affine[:3, i] ** 2).sum())) for i in range(3))
    return a, b, c


def _canonical() -> NDArray[np.float64]:
    canonical: NDArray[np.float64] = nio.axcodes2ornt(CANONICAL_AXES)
    return canonical


def _turn(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    turn: NDArray[np.float64] = nio.ornt_transform(nio.io_orientation(affine), _canonical())
    return turn


def _shape3(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise GeometryError(f"expected a 3D array, got {len(shape)} dimensions with shape {shape}")
    return shape[0], shape[1], shape[2]
