"""The page of one case: what was found, a viewer, lesions, nephrometry, a still overview, provenance."""

import tempfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from renalseg.core.errors import GeometryError
from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.io.files import write_text
from renalseg.report.figures import overlay
from renalseg.report.page.environment import data_uri, render
from renalseg.report.page.scene import make_scene
from renalseg.report.page.viewer import WINDOWS, payload
from renalseg.report.page.wording import (
    SMALLEST_ML,
    counted,
    kidney_title,
    lesion_title,
    provenance,
    renal_score,
    tiles,
)

SCORES = (("renal", "R.E.N.A.L."), ("padua", "PADUA"), ("spare", "SPARE"))
"""Point scores of ``renalseg.report.nephrometry``, in this order on the page."""

MOST_CARDS = 5
"""Nephrometry is told part by part for so many tumors, the largest first; the table has the total of each lesion."""


def write_case_page(
    path: Path,
    ct: Volume,
    labels: Volume,
    record: Mapping[str, Any],
    measurements: Mapping[str, Any] | None = None,
    sketches: Mapping[int, bytes] | None = None,
) -> None:
    """Writes one HTML file that holds everything: pictures, a viewer with CT and labels, tables.

    Args:
        path: the file to write.
        ct: CT [z, y, x] in HU.
        labels: label map on the same grid; see ``core.labels``.
        record: of ``Segmentation``; a part that is missing is left out.
        measurements: the dict of ``renalseg.report.measure``; None leaves out kidneys and lesions.
        sketches: lesion id to a PNG, JPEG or SVG that explains its nephrometry.

    Raises:
        GeometryError: ``labels`` is not on the grid of ``ct``.
        OutputError: the file could not be written.
    """
    if not ct.same_grid(labels):
        raise GeometryError(f"{ct.name}: the labels {labels.shape} are not on the grid of the CT {ct.shape}")
    name = str(record.get("case") or ct.name)
    scene = make_scene(ct, labels)
    lesions = _lesions(measurements, sketches or {})
    tumors = counted({"lesions": lesions}, "tumor")
    start = lesions[0]["centroid_ras_mm"] if lesions else _first_look(labels)
    page = render(
        "case.html",
        name=name,
        record=record,
        found=bool((labels.array > 0).any()),
        tiles=tiles(record, measurements),
        warnings=_warnings(record, measurements),
        scene=scene,
        payload=payload(scene, start),
        windows=WINDOWS,
        measured=measurements is not None,
        kidneys=[{**k, "title": kidney_title(k["side"])} for k in (measurements or {}).get("kidneys", ())],
        lesions=[lesion for lesion in lesions if lesion["volume_ml"] >= SMALLEST_ML],
        smaller=[lesion for lesion in lesions if lesion["volume_ml"] < SMALLEST_ML],
        smallest_ml=SMALLEST_ML,
        is_scored=any(lesion["scores"] for lesion in lesions),
        cards=[lesion for lesion in tumors if lesion["scores"] or lesion["abstained"]][:MOST_CARDS],
        tumors=len(tumors),
        overview=data_uri(_overview(ct, labels, name)),
        provenance=provenance(record),
    )
    write_text(page, path)


def _lesions(measurements: Mapping[str, Any] | None, sketches: Mapping[int, bytes]) -> list[dict[str, Any]]:
    """The lesions as measured, each with its title, its scores in the order of the page, and its sketch."""
    found = []
    for lesion in (measurements or {}).get("lesions", ()):
        nephrometry = lesion.get("nephrometry") or {}
        scores = [{"title": title, **nephrometry[key]} for key, title in SCORES if nephrometry.get(key)]
        sketch = sketches.get(lesion["id"])
        found.append(
            {
                **lesion,
                "title": lesion_title(lesion),
                "renal_score": renal_score(lesion),
                "scores": scores,
                "c_index": nephrometry.get("c_index") or {},
                "abstained": nephrometry.get("abstained", ()),
                "sketch": data_uri(sketch) if sketch else None,
            }
        )
    return found


def _first_look(labels: Volume) -> list[float] | None:
    """The middle, in RAS mm, of the axial slice with most tumor, else cyst, else kidney; None without labels."""
    present = [label for label in (TUMOR, CYST, KIDNEY) if (labels.array == label).any()]
    if not present:
        return None
    mask = labels.array == present[0]
    z = int(mask.sum(axis=(1, 2)).argmax())
    y, x = (float(where.mean()) for where in mask[z].nonzero())
    world: list[float] = (labels.affine @ [z, y, x, 1.0])[:3].tolist()
    return world


def _warnings(record: Mapping[str, Any], measurements: Mapping[str, Any] | None) -> list[str]:
    """Of the segmentation, then of the measurements, each once."""
    sources: Iterable[Any] = (*record.get("warnings", ()), *(measurements or {}).get("warnings", ()))
    return list(dict.fromkeys(map(str, sources)))


def _overview(ct: Volume, labels: Volume, name: str) -> bytes:
    """The still picture of ``report.figures`` as a JPEG, a third of the PNG's size."""
    with tempfile.TemporaryDirectory() as folder:
        png = Path(folder) / "overview.png"
        overlay(ct, labels, png, title=name)
        with Image.open(png) as image:
            packed = BytesIO()
            image.convert("RGB").save(packed, "JPEG", quality=85, optimize=True)
    return packed.getvalue()
