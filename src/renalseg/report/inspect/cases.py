"""One case of a dataset: what is wrong with it, and its measures.

Memory: the labels are cut to their box before the image is read, and the image is looked at slice by slice, so that
nothing of the size of the volume exists beside the arrays that the reader makes.
"""

import hashlib
from dataclasses import dataclass, field, replace

import nibabel.orientations as nio
import numpy as np
from numpy.typing import NDArray

from renalseg.core.labels import LABELS
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box, bounding_box
from renalseg.image.components import drop_small
from renalseg.io.kits import IMAGING, SEGMENTATION, KitsCase, read_labels
from renalseg.io.nifti import read_nifti
from renalseg.report.inspect import findings as find
from renalseg.report.inspect.findings import Finding
from renalseg.report.inspect.quantities import COLUMNS, HU_PERCENTILES, Row


@dataclass(frozen=True)
class CaseReport:
    """What was found in one case.

    Attributes:
        case_id: the folder's name.
        measures: column to value, without the columns that ``row`` adds.
        findings: what is wrong or odd.
        digests: file name to a hash of its voxels in canonical orientation.
    """

    case_id: str
    measures: Row = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether nothing is wrong; oddities do not count."""
        return not any(finding.is_error for finding in self.findings)

    @property
    def is_counted(self) -> bool:
        """Whether its measures enter the percentiles: nothing is wrong but that a file is absent."""
        return all(finding.kind == "missing" or not finding.is_error for finding in self.findings)

    @property
    def row(self) -> Row:
        """All ``COLUMNS``."""
        kinds = ";".join(sorted({finding.kind for finding in self.findings}))
        known: Row = {"case_id": self.case_id, "usable": self.is_usable, "findings": kinds, **self.measures}
        return {column: known.get(column) for column in COLUMNS}

    def adding(self, *findings: Finding) -> "CaseReport":
        """The same with more findings."""
        return replace(self, findings=(*self.findings, *findings))


@dataclass(frozen=True)
class _Labels:
    """A label map cut to its ``box``: ``cut`` is uint8 [z, y, x]; ``grid`` has its grid and takes no memory."""

    grid: Volume
    box: Box
    cut: NDArray[np.uint8]


def inspect_case(case: KitsCase) -> CaseReport:
    """Checks and measures one case; whatever is wrong with its files becomes a finding, never an error."""
    measures: Row = {"has_image": case.imaging is not None, "has_labels": case.segmentation is not None}
    report = CaseReport(case.case_id, measures)
    labels = None
    if case.segmentation is not None:
        try:
            labels, report = _look_at_labels(read_labels(case.segmentation), report)
        except Exception as error:  # one broken case must not stop the others
            report = report.adding(find.unusable(case.case_id, case.segmentation, error))
    if case.imaging is not None:
        try:
            report = _look_at_image(read_nifti(case.imaging), labels, report)
        except Exception as error:
            report = report.adding(find.unusable(case.case_id, case.imaging, error))
    return report


def _look_at_labels(volume: Volume, report: CaseReport) -> tuple[_Labels, CaseReport]:
    """Box, volumes and components of a label map."""
    box = bounding_box(volume.array > 0)
    grid = _grid_only(volume)
    report = _with(report, _grid_row(volume)).adding(*find.check_grid(volume, report.case_id, SEGMENTATION))
    if box is None:
        report = report.adding(find.empty(report.case_id))
        return _Labels(grid, Box((0, 0, 0), (0, 0, 0)), volume.array[:0, :0, :0]), report
    labels = _Labels(grid, box, np.ascontiguousarray(volume.array[box.slices]))
    report = _with(report, _label_row(labels), {SEGMENTATION: _digest(volume.array, np.uint8)})
    odd = find.check_volume(report.case_id, np.count_nonzero(labels.cut) * volume.voxel_mm3 / 1000)
    return labels, report.adding(*([odd] if odd else []))


def _look_at_image(volume: Volume, labels: _Labels | None, report: CaseReport) -> CaseReport:
    """Values of the CT, in all and under each label."""
    low, high, n_bad = _range(volume.array)
    if labels is None:
        report = _with(report, _grid_row(volume))
    report = _with(report, {"hu_min": low, "hu_max": high}, {IMAGING: _digest(volume.array, np.float32)})
    report = report.adding(
        *find.check_grid(volume, report.case_id, IMAGING), *find.check_hu(report.case_id, low, high, n_bad)
    )
    if labels is None:
        return report
    differs = find.check_pair(volume, labels.grid, report.case_id)
    return report.adding(differs) if differs else _with(report, _hu_row(volume.array[labels.box.slices], labels.cut))


def _grid_row(volume: Volume) -> Row:
    (dz, dy, dx), (nz, ny, nx), fields = volume.spacing_mm, volume.shape, volume.grid.nifti_fields
    return {
        "axis_codes": "".join(nio.aff2axcodes(volume.grid.affine)),
        "sform_code": int(fields["sform_code"]),
        "qform_code": int(fields["qform_code"]),
        "slices": nz,
        "in_plane_y": ny,
        "in_plane_x": nx,
        "slice_spacing_mm": round(dz, 6),
        "in_plane_spacing_mm": round((dy + dx) / 2, 6),
        "scan_length_mm": round(nz * dz, 6),
    }


def _label_row(labels: _Labels) -> Row:
    row: Row = {}
    for axis, start, size, mm in zip("zyx", labels.box.start, labels.box.shape, labels.grid.spacing_mm, strict=True):
        row |= {f"roi_start_{axis}": start, f"roi_{axis}": size, f"roi_{axis}_mm": round(size * mm, 6)}
    voxel_mm3 = labels.grid.voxel_mm3
    for label in LABELS:
        row[f"{label.name}_ml"] = round(np.count_nonzero(labels.cut == label.id) * voxel_mm3 / 1000, 6)
    _, kept, _ = drop_small(labels.cut > 0, voxel_mm3, min_voxels=0, min_mm3=0.0)
    return row | {"components": len(kept)}


def _hu_row(image: NDArray[np.generic], labels: NDArray[np.uint8]) -> Row:
    """Percentiles of the finite HU under each label; both arrays are [z, y, x] on the labels' box."""
    row: Row = {}
    for label in LABELS:
        values = image[labels == label.id]
        values = values[np.isfinite(values)]
        if values.size:
            found = np.percentile(values, HU_PERCENTILES)
            row |= {f"hu_{label.name}_p{p}": round(float(v), 3) for p, v in zip(HU_PERCENTILES, found, strict=True)}
    return row


def _range(array: NDArray[np.generic]) -> tuple[float | None, float | None, int]:
    """Lowest and highest finite value, None where there is none, and how many voxels are not finite."""
    low, high, n_bad = np.inf, -np.inf, 0
    for plane in array:
        finite = plane[np.isfinite(plane)] if array.dtype.kind == "f" else plane
        n_bad += plane.size - finite.size
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high, n_bad) if n_bad < array.size else (None, None, n_bad)


def _digest(array: NDArray[np.generic], dtype: type[np.generic]) -> str:
    """A hash of shape and values as ``dtype``, so that it does not depend on how they were stored."""
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    for plane in array:
        digest.update(np.ascontiguousarray(plane, dtype).data)
    return digest.hexdigest()


def _grid_only(volume: Volume) -> Volume:
    return volume.with_array(np.broadcast_to(np.uint8(0), volume.shape))


def _with(report: CaseReport, measures: Row, digests: dict[str, str] | None = None) -> CaseReport:
    return replace(report, measures=report.measures | measures, digests=report.digests | (digests or {}))
