import warnings

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="session")
def reference():
    """Surface Dice by DeepMind's surface-distance. It cannot take empty masks under NumPy 2, so the callers do not."""
    module = pytest.importorskip("surface_distance")

    def surface_dice(truth, prediction, spacing_mm, tolerance_mm):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses SciPy's deprecated namespaces
            distances = module.compute_surface_distances(truth, prediction, spacing_mm)
        return module.compute_surface_dice_at_tolerance(distances, tolerance_mm)

    return surface_dice


@pytest.fixture(scope="session")
def real_labels(shared_data):
    """A dozen real label maps, cropped round the masses: (name, uint8 [z, y, x], spacing in mm)."""
    paths = sorted((shared_data / "kits23_labels").glob("case_*/segmentation.nii.gz"))
    if not paths:
        pytest.skip("no KiTS23 label maps in the shared data")
    paths.sort(key=lambda path: path.stat().st_size)  # the smaller half is quick to read
    return [_read(path) for path in paths[: len(paths) // 2 : 5]]


def _read(path):
    image = nib.load(path)
    labels = np.asarray(image.dataobj).astype(np.uint8)
    slices = np.flatnonzero((labels >= 2).any(axis=(1, 2)))
    z = int(slices[len(slices) // 2])
    y, x = (int(np.median(hit)) for hit in np.nonzero(labels[z] >= 2))
    crop = tuple(slice(max(c - h, 0), c + h) for c, h in zip((z, y, x), (20, 36, 36), strict=True))
    return path.parent.name, labels[crop], tuple(float(s) for s in image.header.get_zooms())


@pytest.fixture
def write_labels():
    """Writes a label map [z, y, x] in KiTS23's orientation, optionally moved along x by ``shift_mm``."""

    def write(path, labels, spacing_mm=(2.0, 1.0, 1.5), shift_mm=0.0):
        path.parent.mkdir(parents=True, exist_ok=True)
        z, y, x = spacing_mm
        affine = np.array([[0, 0, -x, shift_mm], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(labels, affine), path)

    return write
