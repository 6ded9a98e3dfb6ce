"""What a clinic and a lab ask of a label map: measurements with nephrometry, and a sketch of each score."""

from typing import Any

from renalseg.core.volume import Volume
from renalseg.report.measure import measure
from renalseg.report.nephrometry import kidneys_of, nephrometry, sketch
from renalseg.report.page.case import MOST_CARDS
from renalseg.report.page.wording import counted


def assess(labels: Volume, ct: Volume | None = None, sketches: bool = True) -> tuple[dict[str, Any], dict[int, bytes]]:
    """Measures a label map and scores its lesions.

    Args:
        labels: label map [z, y, x] on its grid; see ``core.labels``.
        ct: the CT on the same grid in HU, for the intensities under the lesions.
        sketches: draws the nephrometry of the tumors that a page shows: the largest ones, but for small pieces.

    Returns:
        The dictionary of ``report.measure`` with nephrometry set, and PNG files by lesion id.

    Raises:
        GeometryError: the CT lies on another grid.
    """
    found = measure(labels, ct)
    kidneys = kidneys_of(labels, found)
    scores = nephrometry(labels, found, kidneys)
    scored = found.with_nephrometry([score.as_dict() for score in scores]).as_dict()
    shown = {lesion["id"] for lesion in counted(scored, "tumor")[:MOST_CARDS]} if sketches else set()
    return scored, {s.lesion: sketch(s, labels, found, kidneys) for s in scores if s.lesion in shown}
