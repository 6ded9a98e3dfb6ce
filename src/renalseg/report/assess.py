"""What a clinic and a lab ask of a label map: measurements with nephrometry, and a sketch of each score."""

from typing import Any

from renalseg.core.volume import Volume
from renalseg.report.measure import measure
from renalseg.report.nephrometry import nephrometry, sketch
from renalseg.report.page.case import MOST_CARDS
from renalseg.report.page.wording import SMALLEST_ML


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
    scores = nephrometry(labels, found)
    scored = found.with_nephrometry([score.as_dict() for score in scores])
    tumors = [lesion.id for lesion in found.lesions if lesion.kind == "tumor" and lesion.volume_ml >= SMALLEST_ML]
    shown = set(tumors[:MOST_CARDS]) if sketches else set()
    drawn = {score.lesion: sketch(score, labels, found) for score in scores if score.lesion in shown}
    return scored.as_dict(), drawn
