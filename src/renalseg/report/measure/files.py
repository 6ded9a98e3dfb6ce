"""Label maps in files, folders and datasets, each measured into a JSON file; a bad one does not stop the others."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalseg.core.errors import InputError, RenalsegError, unforeseen
from renalseg.io.files import output_folder, write_json
from renalseg.io.kits import is_dataset, list_cases, read_labels
from renalseg.io.read import NIFTI_SUFFIXES, case_name, read_volume
from renalseg.report.assess import assess
from renalseg.report.suffixes import MEASUREMENTS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelFile:
    """A label map and, where there is one, its CT."""

    name: str
    labels: Path
    ct: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one label map: ``Measurements.as_dict()``, or the sentence that says why there is none."""

    name: str
    measurements: dict[str, Any] | None
    error: str | None


def label_files(inputs: Iterable[Path], ct: Path | None = None) -> dict[str, LabelFile]:
    """The label maps that ``inputs`` name, by case.

    Args:
        inputs: label maps, folders of label maps, or datasets in KiTS23 layout, whose images are taken along.
        ct: the CT of the only label map.

    Raises:
        InputError: an input is missing or holds no label map, two have one name, or ``ct`` is given for several.
    """
    found: dict[str, LabelFile] = {}
    for path in dict.fromkeys(path.absolute() for path in inputs):
        for file in _files_of(path):
            if file.name in found and found[file.name].labels != file.labels:
                first = found[file.name].labels
                raise InputError(f"{first} and {file.labels} are both named {file.name}; measure them separately.")
            found[file.name] = file
    if ct is None:
        return found
    if len(found) != 1:
        raise InputError(f"{ct} is the CT of one label map, but {len(found)} are given; measure that one alone.")
    if not ct.exists():
        raise InputError(f"{ct} does not exist; check the path.")
    return {name: LabelFile(name, file.labels, ct) for name, file in found.items()}


def _files_of(path: Path) -> list[LabelFile]:
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if not path.is_dir():
        return [LabelFile(case_name(path), path)]
    if is_dataset(path):
        cases = [(c.case_id, c.segmentation, c.imaging) for c in list_cases(path)]
        found = [LabelFile(name, labels, image) for name, labels, image in cases if labels is not None]
    else:
        files = (f for f in sorted(path.iterdir()) if f.name.lower().endswith(NIFTI_SUFFIXES) and f.name[0] != ".")
        found = [LabelFile(case_name(file), file) for file in files]
    if not found:
        raise InputError(f"{path} holds no label map; give NIfTI files, their folder, or a dataset in KiTS23 layout.")
    return found


def measure_files(
    files: Mapping[str, LabelFile], out: Path, on_case: Callable[[str], None] | None = None
) -> Iterator[Outcome]:
    """Measures each of ``files`` into ``out``: NAME.measurements.json.

    ``on_case`` is called with a case's name when its turn comes.

    Raises:
        OutputError: ``out`` cannot be written to. Errors of single cases are outcomes instead.
    """
    with output_folder(out):
        for name, file in files.items():
            if on_case:
                on_case(name)
            try:
                ct = None if file.ct is None else read_volume(file.ct)
                measurements = {**assess(read_labels(file.labels), ct, sketches=False)[0], "case": name}
                write_json(measurements, out / f"{name}{MEASUREMENTS}")
            except RenalsegError as problem:
                yield Outcome(name, None, str(problem))
            except Exception as problem:  # a defect of one case is no reason to lose the others
                log.debug("%s", file.labels, exc_info=problem)
                yield Outcome(name, None, unforeseen(file.labels, problem))
            else:
                yield Outcome(name, measurements, None)
