"""R.E.N.A.L. nephrometry: Kutikov and Uzzo 2009, doi:10.1016/j.juro.2009.05.035.

Radius (largest diameter), exophytic or endophytic, nearness to collecting system or sinus, anterior or posterior,
location against the polar lines: 1 to 3 points each but for the fourth, which is a letter; 4 to 12 together. Diameters
count in cm there and in mm here.
"""

from renalseg.report.measure.results import Lesion
from renalseg.report.nephrometry.findings import Findings
from renalseg.report.nephrometry.kidney import Landmarks
from renalseg.report.nephrometry.results import Part, Score

SMALL_MM, LARGE_MM = 40.0, 70.0
FAR_MM, NEAR_MM = 7.0, 4.0

HALF = 0.5

ENDOPHYTIC_SHARE = 0.02
"""Up to this share outside the kidney's estimated contour a lesion counts as entirely endophytic. Ours: the contour is
not exact to a voxel."""

CROSSING_SHARE = 0.01
"""A lesion crosses a plane if this share of its volume lies on either side. Ours: a voxel or two do not count."""

HILAR_MM = 5.0
"""Suffix h: the lesion comes this near to the middle of the sinus's opening, where the main vessels pass. Ours: vessels
are not labelled, so contact with them is only presumed."""

LETTERS = {"anterior": "a", "posterior": "p", None: "x"}


def renal(lesion: Lesion, found: Findings | None, marks: Landmarks | None, reason: str) -> Score:
    """The score of ``lesion``.

    Args:
        lesion: as measured.
        found: its values against the landmarks; None where there are no landmarks.
        marks: the landmarks.
        reason: why there are none.
    """
    parts = {
        "R": radius(lesion),
        "E": exophytic(lesion, found, (1, 2, 3), reason),
        "N": _nearness(found, reason),
        "A": _face(lesion, found, reason),
        "L": _location(found, marks, reason),
    }
    return Score(parts, suffix(lesion, found), ("A",), "doi:10.1016/j.juro.2009.05.035")


def radius(lesion: Lesion) -> Part:
    """R: at most 4 cm, between, from 7 cm, by the largest diameter in any axial slice."""
    mm = lesion.axial_diameter.mm
    geometry = {"ends_ras_mm": lesion.axial_diameter.ends_ras_mm}
    if mm <= SMALL_MM:
        return Part(1, mm, "mm", f"{mm:.1f} mm across, at most {SMALL_MM:.0f} mm.", geometry)
    if mm < LARGE_MM:
        return Part(2, mm, "mm", f"{mm:.1f} mm across, between {SMALL_MM:.0f} and {LARGE_MM:.0f} mm.", geometry)
    return Part(3, mm, "mm", f"{mm:.1f} mm across, at least {LARGE_MM:.0f} mm.", geometry)


def exophytic(lesion: Lesion, found: Findings | None, points: tuple[int, int, int], reason: str) -> Part:
    """E: at least half outside, less than half, nothing outside the kidney's estimated contour.

    Args:
        lesion: as measured.
        found: its values against the landmarks; None where there are none.
        points: of the three.
        reason: why there are no landmarks, or an empty string: a kidney without them has no certain contour either.
    """
    share = lesion.exophytic_share
    if share is None or found is None:
        return _untold("share", reason or "the kidney's contour could not be estimated")
    geometry = {"centroid_ras_mm": lesion.centroid_ras_mm}
    if found.outside is not None:
        geometry["outside_centroid_ras_mm"] = found.outside
    text = f"{share:.0%} of its volume lies outside the kidney's estimated contour"
    if share >= HALF:
        return Part(points[0], share, "share", f"{text}, at least half.", geometry)
    if share > ENDOPHYTIC_SHARE:
        return Part(points[1], share, "share", f"{text}, less than half.", geometry)
    return Part(points[2], share, "share", f"{text}: entirely endophytic.", geometry)


def suffix(lesion: Lesion, found: Findings | None) -> str:
    """a (anterior), p (posterior) or x (neither), then h where the lesion lies at the hilum; empty if not told."""
    if found is None:
        return ""
    return LETTERS[lesion.face] + ("h" if found.hilum_mm <= HILAR_MM else "")


def _nearness(found: Findings | None, reason: str) -> Part:
    """N: at least 7 mm, between, at most 4 mm from the estimated sinus, which holds the collecting system."""
    if found is None:
        return _untold("mm", reason)
    mm, geometry = found.sinus_mm, {"lesion_ras_mm": found.nearest[0], "sinus_ras_mm": found.nearest[1]}
    if mm >= FAR_MM:
        return Part(1, mm, "mm", f"{mm:.1f} mm from the estimated sinus, at least {FAR_MM:.0f} mm.", geometry)
    if mm > NEAR_MM:
        text = f"{mm:.1f} mm from the estimated sinus, between {NEAR_MM:.0f} and {FAR_MM:.0f} mm."
        return Part(2, mm, "mm", text, geometry)
    return Part(3, mm, "mm", f"{mm:.1f} mm from the estimated sinus, at most {NEAR_MM:.0f} mm.", geometry)


def _face(lesion: Lesion, found: Findings | None, reason: str) -> Part:
    """A: no points, a letter; with the distance to the hilum that decides on h."""
    if found is None:
        return _untold("mm", reason)
    where = {"anterior": "Anterior", "posterior": "Posterior", None: "Neither anterior nor posterior"}[lesion.face]
    near = f"{found.hilum_mm:.1f} mm from the middle of the hilum"
    text = f"{where}; {near}" + (": contact with the main vessels is presumed." if found.hilum_mm <= HILAR_MM else ".")
    return Part(None, found.hilum_mm, "mm", text, {"hilum_ras_mm": found.hilum})


def _location(found: Findings | None, marks: Landmarks | None, reason: str) -> Part:
    """L: beyond a polar line, across one, or more than half between them or across the axial midline."""
    if found is None or marks is None:
        return _untold("share", reason)
    geometry = {
        "upper_line_s_mm": marks.upper_mm,
        "lower_line_s_mm": marks.lower_mm,
        "midline_s_mm": marks.midline_mm,
        "lesion_s_mm": (found.bottom_mm, found.top_mm),
    }
    share = found.between
    text = f"{share:.0%} of its volume lies between the polar lines"
    if CROSSING_SHARE <= found.above_midline <= 1 - CROSSING_SHARE:
        return Part(3, share, "share", f"{text}, and it crosses the axial midline.", geometry)
    if share > HALF:
        return Part(3, share, "share", f"{text}, more than half.", geometry)
    if share >= CROSSING_SHARE:
        return Part(2, share, "share", f"{text}: it crosses a polar line.", geometry)
    return Part(1, share, "share", f"{text}: it lies beyond them.", geometry)


def _untold(unit: str, reason: str) -> Part:
    return Part(None, None, unit, f"Not told: {reason}.")
