"""A synthetic real body, an elliptic trunk with spine, fat, and kidneys of 150 HU; and label maps to set into it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.phantom.bodies import CT, KIDNEYS, RealBody, load_body
from renalseg.phantom.draws import Contrast, draw_contrast
from renalseg.phantom.fields import Lattice
from renalseg.phantom.given import given_renal, locate
from renalseg.phantom.scene import Renal


class Trunk:
    """The scan and its kidneys; every part is on the grid ``shape`` of ``spacing`` mm."""

    spacing = (5.0, 4.0, 4.0)
    shape = (56, 72, 96)
    centres = ((27, 42, 32), (29, 42, 62))

    def ellipse(self, centre: tuple[float, float, float], half: tuple[float, float, float]) -> NDArray[np.bool_]:
        z, y, x = np.mgrid[: self.shape[0], : self.shape[1], : self.shape[2]].astype(np.float32)
        parts = [((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, half, strict=True)]
        return sum(parts) < 1

    def liver(self) -> NDArray[np.bool_]:
        """Soft tissue of 40 HU in all slices."""
        return self.ellipse((28, 24, 47), (999, 5, 20))

    def kidneys(self) -> NDArray[np.uint8]:
        mask = np.zeros(self.shape, np.uint8)
        for side, centre in enumerate(self.centres, start=1):
            mask[self.ellipse(centre, (10, 6, 6))] = side
        return mask

    def scan(self) -> NDArray[np.int16]:
        hu = np.full(self.shape, -1000, np.int16)
        for half, value in (((999, 30, 42), -100), ((999, 27, 38), 50), ((999, 24, 34), -100)):
            hu[self.ellipse((28, 36, 47), half)] = value
        hu[self.liver()] = 40
        hu[self.ellipse((28, 49, 47), (999, 6, 6))] = 600
        hu[self.kidneys() > 0] = 150
        return hu

    def write(
        self,
        folder: Path,
        mask: NDArray[np.uint8] | None = None,
        name: str = KIDNEYS,
        *,
        hu: NDArray[np.int16] | None = None,
        slices: slice = slice(None),
    ) -> Path:
        """Writes the folder of a body; ``mask`` and ``hu`` replace the kidneys and the scan."""
        for array, file in ((self.scan() if hu is None else hu, CT), (self.kidneys() if mask is None else mask, name)):
            write_nifti(Volume.from_array(np.ascontiguousarray(array[slices]), self.spacing), folder / file)
        return folder


@pytest.fixture(scope="session")
def trunk() -> Trunk:
    return Trunk()


@pytest.fixture(scope="session")
def body_folder(trunk: Trunk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trunk.write(tmp_path_factory.mktemp("bodies") / "trunk")


@pytest.fixture(scope="session")
def body(body_folder: Path) -> RealBody:
    return load_body(body_folder)


def _label_map(slices: int = 30, sides: tuple[int, ...] = (-1, 1), shift_mm: float = 0.0) -> Volume:
    z, y, x = np.mgrid[:slices, :80, :80].astype(np.float32)
    array = np.zeros((slices, 80, 80), np.uint8)
    for side in sides:
        r = ((z - slices / 2) / 11) ** 2 + ((y - 44) / 6) ** 2 + ((x - 40 - shift_mm / 4.5 - side * 14) / 6) ** 2
        array[r < 1] = KIDNEY
        array[(z - slices / 2) ** 2 + (y - 40) ** 2 + (x - 40 - shift_mm / 4.5 - side * 14) ** 2 < 9] = TUMOR
        array[(z - slices / 2 - 5) ** 2 + (y - 47) ** 2 + (x - 40 - shift_mm / 4.5 - side * 14) ** 2 < 4] = CYST
    return Volume.from_array(array, (5.0, 4.5, 4.5), "given")


def _placed(rng: np.random.Generator, labels: Volume) -> tuple[Contrast, Lattice, Renal]:
    contrast = draw_contrast(rng)
    at = locate(labels)
    assert at is not None
    grid = Lattice((-at.centre[0], -at.centre[1], -at.centre[2]), labels.spacing_mm, labels.shape)
    return contrast, grid, given_renal(rng, labels, at, grid, contrast)


@pytest.fixture(scope="session")
def label_map() -> Callable[..., Volume]:
    """Makes a label map of kidneys, tumors and cysts."""
    return _label_map


@pytest.fixture(scope="session")
def placed() -> Callable[[np.random.Generator, Volume], tuple[Contrast, Lattice, Renal]]:
    """Draws a contrast, and places a label map's grid and its kidneys in patient mm."""
    return _placed
