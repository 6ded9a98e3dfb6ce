"""Many CTs through one ``Segmenter``: labels, record and picture of each; a bad case does not stop the others."""

import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from renalseg.core.errors import ConfigError, InputError, OutputError, RenalsegError
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.files import atomic_path, output_error, output_folder, write_json
from renalseg.io.kits import is_dataset, list_cases
from renalseg.io.nifti import write_nifti
from renalseg.io.read import case_name, read_volume
from renalseg.predict.segmenter import Segmenter
from renalseg.report.figures import overlay

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its record, or the sentence that says why there is none."""

    name: str
    source: Path
    record: dict[str, Any] | None
    error: str | None


def list_inputs(inputs: Sequence[Path]) -> dict[str, Path]:
    """Case names and their files; a dataset folder in KiTS23 layout stands for all its images.

    Inputs of equal name are told apart by their folder: ``a/ct.nii.gz`` and ``b/ct.nii.gz`` are ``a_ct`` and ``b_ct``.

    Raises:
        ConfigError: two inputs would write the same files. InputError: a dataset without images.
    """
    shared = {name for name, count in Counter(case_name(path) for path in inputs).items() if count > 1}
    found: dict[str, Path] = {}
    for path in inputs:
        if path.is_dir() and is_dataset(path):
            new = {case.case_id: case.imaging for case in list_cases(path) if case.imaging}
            if not new:
                raise InputError(f"{path} holds label maps but no imaging.nii.gz; give a dataset with its CTs")
        else:
            name = case_name(path)
            new = {f"{path.resolve().parent.name}_{name}" if name in shared else name: path}
        for name, file in new.items():
            if name in found:
                raise ConfigError(f"{found[name]} and {file} would both be written as {name}; segment them separately")
            found[name] = file
    return found


def segment_all(
    cases: dict[str, Path], out: Path, segmenter: Segmenter, on_case: Callable[[str], None] | None = None
) -> Iterator[Outcome]:
    """Segments ``cases`` (name to file) into ``out``: NAME.nii.gz, NAME.json and NAME.png each.

    ``on_case`` is called with a case's name when its turn comes.

    Raises:
        OutputError: ``out`` cannot be written to. Errors of single cases are outcomes instead.
    """
    with output_folder(out):
        for name, path in cases.items():
            if on_case:
                on_case(name)
            try:
                record: dict[str, Any] | None = segment_file(name, path, out, segmenter)
                error = None
            except RenalsegError as problem:
                record, error = None, str(problem)
            except Exception as problem:
                record, error = None, _unforeseen(path, problem)
            yield Outcome(name, path, record, error)


def segment_file(name: str, path: Path, out: Path, segmenter: Segmenter) -> dict[str, Any]:
    """Reads, segments and writes one case; returns its record.

    Raises:
        InputError: the file cannot be used. OutputError: a result could not be written; none of them then is.
    """
    started = time.perf_counter()
    volume = read_volume(path)
    read_s = time.perf_counter() - started
    result = segmenter.segment(volume)
    result.record["case"] = name
    result.record["input"] = path.resolve().name
    result.record["timings_s"] = {"read": round(read_s, 4), **result.record["timings_s"]}
    return write_result(result, volume, out / name)


def write_result(result: Segmentation, ct: Volume, stem: Path) -> dict[str, Any]:
    """Writes STEM.nii.gz, STEM.png and STEM.json, all or none; returns the record with the time that writing took.

    All three are written under temporary names first; the JSON is renamed last and marks a finished case.

    Raises:
        OutputError: one of them could not be written.
    """
    started = time.perf_counter()
    record = result.record
    targets = [stem.with_name(stem.name + suffix) for suffix in (".json", ".png", ".nii.gz")]
    for target in targets:
        if target.is_dir():
            raise output_error(target, IsADirectoryError(errno.EISDIR, "is a folder"))
    try:
        with ExitStack() as stack:
            json_path, picture, labels = (stack.enter_context(atomic_path(target)) for target in targets)
            write_nifti(result.labels, labels)
            overlay(ct, result.labels, picture, title=stem.name, subtitle=_subtitle(record))
            record["timings_s"]["write"] = round(time.perf_counter() - started, 4)
            write_json(record, json_path)
    except OutputError as error:
        if isinstance(error.__cause__, OSError):  # named by its temporary file so far
            raise output_error(stem.with_name(stem.name + ".*"), error.__cause__) from error
        raise
    return record


def _unforeseen(path: Path, problem: Exception) -> str:
    """A sentence for an error that nobody planned for; the traceback goes to the log."""
    log.debug("%s", path, exc_info=problem)
    memory = isinstance(problem, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(problem)
    if memory:
        return f"{path}: the memory ran out; close other programs, or use --device cpu"
    return f"{path}: {type(problem).__name__}: {problem}; please report this with the file's header"


def _subtitle(record: dict[str, Any]) -> str:
    weights = ", ".join(w["path"] for w in record["weights"])
    return f"weights {weights} ({record['weights_sha256'][:8]}), preset {record['preset']}"
