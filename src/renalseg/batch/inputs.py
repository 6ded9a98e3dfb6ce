"""From what a user names to cases: names that are told apart, and a sentence for each input that cannot be one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renalseg.core.errors import InputError, RenalsegError
from renalseg.io.kits import is_dataset, list_cases
from renalseg.io.read import case_name, naming_path


@dataclass(frozen=True)
class Outcome:
    """What became of one input: its record, or the sentence that says why there is none."""

    name: str
    source: Path
    record: dict[str, Any] | None
    error: str | None
    measurements: dict[str, Any] | None = None
    """The dictionary of ``report.measure``, where it was asked for."""
    kept: bool = False
    """Whether an earlier run made it: nothing was computed."""


def list_inputs(inputs: Sequence[Path]) -> tuple[dict[str, Path], list[Outcome]]:
    """Case names and their files; a dataset folder in KiTS23 layout stands for all its images.

    Inputs of equal name are told apart by their folder: ``a/ct.nii.gz`` and ``b/ct.nii.gz`` are ``a_ct`` and ``b_ct``,
    ``a/case/imaging.nii.gz`` and ``b/case/imaging.nii.gz`` are ``a_case`` and ``b_case``.
    An input that is named twice counts once.

    Returns:
        The cases, and an outcome with its error for each input that cannot be one.
    """
    names: dict[Path, str] = {}
    refused: list[Outcome] = []
    for path in {path.absolute(): path for path in inputs}.values():
        try:
            names[path] = case_name(path)
        except OSError as error:
            refused.append(Outcome(path.name, path, None, f"{path}: {error.strerror}; check the path."))
    above = {path: f"{naming_path(path).parent.name}_{name}" for path, name in names.items()}
    shared, alike = _repeated(names.values()), _repeated(above.values())
    found: dict[str, Path] = {}
    for path, name in names.items():
        folder = path.resolve().parent.name
        folder_first = name if name not in shared else f"{folder}_{name}" if above[path] in alike else above[path]
        try:
            new = _cases_of(path, folder_first)
        except RenalsegError as error:
            refused.append(Outcome(name, path, None, str(error)))
            continue
        for case, file in new.items():
            if file is None:
                refused.append(
                    Outcome(case, path, None, f"{path} holds no imaging.nii.gz for {case}; download it again.")
                )
            elif case in found:
                reason = f"{file} would be written as {case} like {found[case]}; segment it separately."
                refused.append(Outcome(case, file, None, reason))
            else:
                found[case] = file
    return found, refused


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def _cases_of(path: Path, name: str) -> Mapping[str, Path | None]:
    """The cases of a dataset, None where one lacks its image; else the input itself, as ``name``."""
    if not (path.is_dir() and is_dataset(path)):
        return {name: path}
    cases = {case.case_id: case.imaging for case in list_cases(path)}
    if not any(cases.values()):
        raise InputError(f"{path} holds label maps but no imaging.nii.gz; give a dataset with its CTs")
    return cases
