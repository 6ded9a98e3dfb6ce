"""What can be wrong with a case, each as one sentence: which case, which file, what, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from renalseg.core.errors import GeometryError, RenalsegError
from renalseg.core.volume import Volume
from renalseg.io.kits import IMAGING, SEGMENTATION

GRID_TOLERANCE_MM = 0.1
"""How far image and labels may lie apart; what ``io.kits.read_case`` allows."""

MIN_FIELD_MM, MAX_FIELD_MM = 100.0, 1000.0
MAX_SLICE_MM = 12.5
MIN_LENGTH_MM, MAX_LENGTH_MM = 30.0, 2500.0
MIN_LABELLED_ML, MAX_LABELLED_ML = 20.0, 10000.0
"""Beyond these no abdominal CT of a patient with kidneys lies. Our choice, wide on purpose."""

HU_AIR_BELOW, HU_DENSE_ABOVE = -500.0, 200.0
HU_LOWEST, HU_HIGHEST = -10000.0, 65535.0
"""An abdominal CT holds air below the first and bone or contrast above the second, and nothing beyond the last two."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or odd.

    Attributes:
        case_id: which case.
        file: which of its files; empty where it is about the whole case.
        kind: missing, unusable, geometry, grid, empty, volume, hu or duplicate.
        message: one sentence, with what to do.
        is_error: whether the case should not be used as it is; else it is only odd.
    """

    case_id: str
    file: str
    kind: str
    message: str
    is_error: bool = True


def unusable(case_id: str, path: Path, error: Exception) -> Finding:
    """The finding for a file that could not be read."""
    where = f"{case_id}/{path.name}"
    if isinstance(error, RenalsegError):
        message = str(error).replace(str(path), where)
    elif isinstance(error, MemoryError):
        message = f"{where} needs more memory than there is; use fewer workers or close other programs."
    else:
        message = f"{where} could not be read ({type(error).__name__}: {error}); please report this with its header."
    return Finding(case_id, path.name, "geometry" if isinstance(error, GeometryError) else "unusable", message)


def missing(case_id: str, file: str, others: int) -> Finding:
    """The finding for a file that is absent here and there for ``others`` cases."""
    have = "another case has" if others == 1 else f"{others} other cases have"
    return Finding(
        case_id, file, "missing", f"{case_id} has no {file}, which {have}; download it or leave the case out."
    )


def missing_both(case_id: str) -> Finding:
    """The finding for a folder named as a case that holds neither file."""
    what = f"{case_id} holds neither {IMAGING} nor {SEGMENTATION}; download the case or remove the folder."
    return Finding(case_id, "", "missing", what)


def duplicate(case_id: str, file: str, first: str) -> Finding:
    """The finding for a file with the voxels of the same file of case ``first``."""
    return Finding(
        case_id,
        file,
        "duplicate",
        f"{case_id}/{file} holds exactly the voxels of {first}/{file}; keep one of the two cases, "
        "or the same patient may be in training and validation.",
    )


def check_grid(volume: Volume, case_id: str, file: str) -> Iterator[Finding]:
    """Spacing, field of view and scan length that no abdominal CT has, and what reading had to assume."""
    where = f"{case_id}/{file}"
    (dz, dy, dx), (nz, ny, nx) = volume.spacing_mm, volume.shape
    for name, field in (("antero-posterior", ny * dy), ("left-right", nx * dx)):
        if not MIN_FIELD_MM <= field <= MAX_FIELD_MM:
            what = f"{where} spans {field:g} mm {name} ({ny} x {nx} pixels of {dy:g} x {dx:g} mm in plane)"
            what += f", not {MIN_FIELD_MM:g} to {MAX_FIELD_MM:g} mm; correct the spacing and the axes of its header."
            yield Finding(case_id, file, "geometry", what)
    if dz > MAX_SLICE_MM or not MIN_LENGTH_MM <= nz * dz <= MAX_LENGTH_MM:
        what = (
            f"{where} has {nz} slices, {dz:g} mm apart, {nz * dz:g} mm in all, not at most {MAX_SLICE_MM:g} mm apart "
        )
        what += f"over {MIN_LENGTH_MM:g} to {MAX_LENGTH_MM:g} mm; correct the spacing and the axes of its header."
        yield Finding(case_id, file, "geometry", what)
    if abs(dy - dx) > 0.01 * max(dy, dx):
        what = f"{where} has pixels of {dy:g} x {dx:g} mm in plane, not square as CT has; check its spacing and axes."
        yield Finding(case_id, file, "geometry", what, is_error=False)
    for warning in volume.warnings:
        what = f"{where}: {warning[0].lower()}{warning[1:].rstrip('.')}; check its header."
        yield Finding(case_id, file, "geometry", what, is_error=False)


def check_pair(image: Volume, labels: Volume, case_id: str) -> Finding | None:
    """Image and labels that lie on different grids; only shapes and affines are looked at."""
    if image.same_grid(labels, GRID_TOLERANCE_MM):
        return None
    if image.shape != labels.shape:
        differ = f"{_by(image.shape)} and {_by(labels.shape)} voxels (z, y, x)"
    else:
        differ = " and ".join(
            f"{_by(v.spacing_mm)} mm from ({', '.join(f'{c:.2f}' for c in v.affine[:3, 3])}) mm"
            for v in (image, labels)
        )
    what = f"{case_id}: {IMAGING} and {SEGMENTATION} lie on different grids ({differ}); download the case again."
    return Finding(case_id, SEGMENTATION, "grid", what)


def empty(case_id: str) -> Finding:
    """The finding for a label map without any label."""
    what = f"{case_id}/{SEGMENTATION} is empty, background everywhere; annotate or download it again, or leave it out."
    return Finding(case_id, SEGMENTATION, "empty", what)


def check_volume(case_id: str, labelled_ml: float) -> Finding | None:
    """Labels whose volume is no kidney's."""
    if MIN_LABELLED_ML <= labelled_ml <= MAX_LABELLED_ML:
        return None
    what = f"{case_id}/{SEGMENTATION} labels {labelled_ml:.3g} ml in all, not {MIN_LABELLED_ML:g} to "
    what += f"{MAX_LABELLED_ML:g} ml; look at the labels and the spacing."
    return Finding(case_id, SEGMENTATION, "volume", what, is_error=False)


def check_hu(case_id: str, low: float | None, high: float | None, n_bad: int) -> Iterator[Finding]:
    """Values that are not HU of an abdominal CT: ``low`` and ``high`` of the finite ones, ``n_bad`` others."""
    where = f"{case_id}/{IMAGING}"

    def finding(what: str) -> Finding:
        return Finding(case_id, IMAGING, "hu", f"{where} {what}")

    if n_bad:
        yield finding(f"holds {n_bad} voxels that are NaN or infinite; export or download it again.")
    if low is None or high is None:
        return
    if low > HU_AIR_BELOW:
        yield finding(
            f"holds nothing below {low:g}, but air is near -1000 HU; export it in HU, neither shifted nor scaled."
        )
    if high < HU_DENSE_ABOVE:
        yield finding(f"holds nothing above {high:g}, but bone is above {HU_DENSE_ABOVE:g} HU; export it in HU.")
    if low < HU_LOWEST or high > HU_HIGHEST:
        yield finding(f"holds values from {low:g} to {high:g}, which are no HU; export it in HU, padding near -1024.")


def _by(numbers: tuple[float, ...]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
