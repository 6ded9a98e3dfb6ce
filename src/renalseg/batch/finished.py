"""Whether a case was segmented before, from the same input by the same weights and settings, and nothing is missing.

Labels of another size than they were written with are read: where a file was cut off, the case is done again, and
where somebody corrected and saved them, they are kept.
"""

import json
from pathlib import Path
from typing import Any

from renalseg import __version__
from renalseg.batch.results import BYTES, MADE_FROM, Extras, all_targets, targets
from renalseg.core.errors import InputError
from renalseg.io.files import fingerprint
from renalseg.io.nifti import read_nifti
from renalseg.predict.segmenter import Segmenter
from renalseg.report.suffixes import DICOM_SEG, DICOM_SR, LABELS, MEASUREMENTS, PAGE, PICTURE


def made_from(path: Path, out: Path, segmenter: Segmenter, extras: Extras) -> dict[str, Any]:
    """What the results of a case in ``out`` depend on, JSON-ready; the input is told by place, name, size and time.

    The device is no part of it: the networks are the same, in the same precision.

    Raises:
        OSError: the input cannot be looked at.
    """
    return {
        "input": fingerprint(path, without=out),
        "input_bytes": path.stat().st_size if path.is_file() else None,
        "weights_sha256": segmenter.weights_sha256,
        "config_sha256": [weights.config.sha256() for weights in segmenter.weights],
        "precision": segmenter.runtime.precision,
        "mirror_z": segmenter.tta,
        "renalseg": __version__,
        "extras": extras.kinds,
    }


def finished(stem: Path, source: dict[str, Any], extras: Extras) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """Record and measurements of the case at ``stem``, where it was made from ``source`` and nothing is missing.

    Extras beyond those that are wanted now do not matter.
    """
    try:
        record: dict[str, Any] = json.loads(targets(stem)[0].read_text(encoding="utf-8"))
        found = record[MADE_FROM]
        same = {**found, "extras": None} == {**source, "extras": None} and set(extras.kinds) <= set(found["extras"])
        files = all_targets(stem, extras, record["kidney_found"])
        if not same or not all(_is_whole(file, record[BYTES]) for file in files):
            return None
        if not extras.any:
            return record, None
        from renalseg.report.measure.tables import read_measurements  # here, since SciPy takes long to load

        return record, read_measurements(stem.with_name(stem.name + MEASUREMENTS))
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None


def is_foreign(record: Path) -> bool:
    """Whether a JSON file of the name of a record is somebody else's, as converters of DICOM write one beside a CT."""
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and bool(data) and not data.keys() & {MADE_FROM, "renalseg"}


def _is_whole(file: Path, sizes: dict[str, int]) -> bool:
    """Whether ``file`` is there and not cut off, as far as that can be told without reading each one."""
    size = file.stat().st_size
    if file.name.endswith(LABELS) and size != sizes[file.name]:
        read_nifti(file)
    if file.name.endswith((PICTURE, PAGE, DICOM_SEG, DICOM_SR)):
        return size >= sizes[file.name]
    return size > 0
