"""Cohorts of phantoms on disk, in the KiTS23 layout."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import renalseg
from renalseg.core.errors import InputError, OutputError
from renalseg.core.processes import process_pool
from renalseg.core.volume import Volume
from renalseg.io.files import write_json
from renalseg.io.kits import IMAGING, SEGMENTATION, list_cases, read_labels
from renalseg.io.nifti import GEOMETRY_FIELDS, write_nifti
from renalseg.phantom.bodies import list_bodies
from renalseg.phantom.case import render_case
from renalseg.phantom.draws import MATRIX, PHASES

__all__ = ["render_case", "write_cohort"]

log = logging.getLogger(__name__)

RECORD, RECORDS = "phantom.json", "phantoms.json"
_KITS_SFORM = 2
_NEGATIVE_STREAM = 7


@dataclass(frozen=True)
class _Request:
    """What determines the files of one case."""

    seed: int
    index: int
    labels: str | None
    kidneys: str
    in_plane: int
    max_slices: int | None
    version: str
    bodies: tuple[str, ...] = ()
    deform: bool = False
    phases: tuple[str, ...] = PHASES

    def as_record(self) -> dict[str, Any]:
        """JSON-ready; options that are not used are left out, so that cohorts older than those stay finished."""
        record = {**asdict(self), "bodies": list(self.bodies), "phases": list(self.phases)}
        unused: dict[str, Any] = {"bodies": [], "deform": False, "phases": list(PHASES)}
        return {key: value for key, value in record.items() if key not in unused or value != unused[key]}


def write_cohort(
    out: Path,
    cases: int,
    seed: int,
    labels_dir: Path | None = None,
    workers: int = 2,
    on_case: Callable[[int, dict[str, Any]], None] | None = None,
    *,
    in_plane: int = MATRIX,
    max_slices: int | None = None,
    negatives: float = 0.0,
    bodies_dir: Path | None = None,
    deform: bool = False,
    phases: Sequence[str] = PHASES,
) -> list[dict[str, Any]]:
    """Writes ``case_00000`` and so on, each with imaging, segmentation and ``phantom.json``, and ``phantoms.json``.

    A case depends on ``seed``, its number and the options only, not on ``cases`` or ``workers``. Finished cases that
    were made from the same options are kept, so that an interrupted run goes on where it stopped.

    Args:
        out: the dataset's folder; created.
        cases: number of cases.
        seed: of the whole cohort.
        labels_dir: a dataset in KiTS23 layout whose label maps are used in turn; None draws the kidneys.
        workers: processes; 1 renders in this one.
        on_case: called with the case's number and its record as cases are finished, in any order.
        in_plane, max_slices: see ``render_case``; drawn kidneys only.
        negatives: share of scans without kidneys; drawn kidneys only.
        bodies_dir: real bodies, a folder each, that the kidneys are set into; None draws the bodies.
        deform: deforms the label maps; with ``labels_dir`` only.
        phases: contrast phases to draw from, of ``draws.PHASES``.

    Returns:
        The records, by case.

    Raises:
        InputError: a phase does not exist, ``labels_dir`` holds no label map, or ``bodies_dir`` no body that can be
            used.
        OutputError: a file could not be written.
    """
    unknown = [phase for phase in phases if phase not in PHASES]
    if unknown or not phases:
        raise InputError(f"there is no contrast phase {', '.join(unknown) or 'given'}; choose of {', '.join(PHASES)}")
    chosen = tuple(phase for phase in PHASES if phase in phases)
    maps = _label_maps(labels_dir)
    bodies = list_bodies(bodies_dir) if bodies_dir is not None else []
    names = tuple(body.name for body in bodies)
    requests = [
        replace(_request(i, seed, maps, in_plane, max_slices, negatives), bodies=names, deform=deform, phases=chosen)
        for i in range(cases)
    ]
    records: dict[int, dict[str, Any]] = {}
    for index, record in _run(out, requests, maps, bodies, workers):
        records[index] = record
        if on_case is not None:
            on_case(index, record)
    ordered = [records[i] for i in range(cases)]
    write_json(ordered, out / RECORDS)
    return ordered


def _label_maps(labels_dir: Path | None) -> list[Path]:
    if labels_dir is None:
        return []
    maps = [case.segmentation for case in list_cases(labels_dir) if case.segmentation is not None]
    if not maps:
        raise InputError(f"{labels_dir} holds no case_*/{SEGMENTATION}; give a folder with KiTS23 label maps.")
    return maps


def _request(
    index: int, seed: int, maps: list[Path], in_plane: int, max_slices: int | None, negatives: float
) -> _Request:
    if maps:
        name = maps[index % len(maps)].parent.name
        return _Request(seed, index, name, "both", MATRIX, None, renalseg.__version__)
    draw = np.random.default_rng([seed, index, _NEGATIVE_STREAM]).uniform()
    kidneys = "none" if draw < negatives else "both"
    return _Request(seed, index, None, kidneys, in_plane, max_slices, renalseg.__version__)


def _run(
    out: Path, requests: list[_Request], maps: list[Path], bodies: list[Path], workers: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    todo = []
    for request in requests:
        done = _finished(out, request)
        if done is None:
            _check_ours(_folder(out, request.index))
            todo.append((out, request, maps[request.index % len(maps)] if maps else None, bodies))
        else:
            yield request.index, done
    if workers <= 1 or len(todo) <= 1:
        for job in todo:
            yield job[1].index, _make(*job)
        return
    with process_pool(workers) as pool:
        futures = {pool.submit(_make, *job): job[1].index for job in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _check_ours(folder: Path) -> None:
    """Raises OutputError where a case stands that was not rendered: real data are never written over."""
    if not (folder / RECORD).exists() and any((folder / name).exists() for name in (IMAGING, SEGMENTATION)):
        raise OutputError(f"{folder} holds a case that was not rendered here; choose another output folder")


def _finished(out: Path, request: _Request) -> dict[str, Any] | None:
    folder = _folder(out, request.index)
    if not all((folder / name).is_file() for name in (RECORD, IMAGING, SEGMENTATION)):
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except ValueError:
        return None
    finished = (
        isinstance(record, dict) and record.get("request") == request.as_record() and not record.get("unfinished")
    )
    return record if finished else None


def _make(out: Path, request: _Request, label_map: Path | None, bodies: list[Path]) -> dict[str, Any]:
    """Renders and writes one case; the record comes last, so that a case with a record is complete."""
    labels = read_labels(label_map) if label_map is not None else None
    ct, found, record = render_case(
        (request.seed, request.index),
        labels,
        kidneys=request.kidneys,
        in_plane=request.in_plane,
        max_slices=request.max_slices,
        bodies=bodies,
        deform=request.deform,
        phases=request.phases,
    )
    folder = _folder(out, request.index)
    write_json({"request": request.as_record(), "unfinished": True}, folder / RECORD)
    record = {"case": folder.name, **record, "request": request.as_record()}
    write_nifti(_as_kits(ct), folder / IMAGING)
    write_nifti(_as_kits(found), folder / SEGMENTATION)
    write_json(record, folder / RECORD)
    log.debug("%s written", folder)
    return record


def _folder(out: Path, index: int) -> Path:
    return out / f"case_{index:05d}"


def _as_kits(volume: Volume) -> Volume:
    """Gives a drawn volume KiTS23's header geometry (sform code 2, qform code 0); a given grid keeps its own."""
    if volume.grid.nifti_fields:
        return volume
    header = nib.Nifti1Header()
    header.set_data_shape(volume.grid.shape)
    header.set_xyzt_units("mm")
    header.set_zooms(volume.spacing_mm)
    header.set_sform(volume.grid.affine, code=_KITS_SFORM)
    fields = {name: header[name].copy() for name in GEOMETRY_FIELDS}
    fields["pixdim"] = header["pixdim"][:4].copy()
    return replace(volume, grid=replace(volume.grid, nifti_fields=fields))
