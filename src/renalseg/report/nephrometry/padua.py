"""PADUA (Ficarra et al. 2009, doi:10.1016/j.eururo.2009.07.040) and SPARE (Ficarra et al. 2019, doi:10.1111/bju.14772).

PADUA: polar location, exophytic rate, renal rim, renal sinus, urinary collecting system, size; 6 to 14 points. SPARE is
what was kept of it: exophytic rate, renal rim, renal sinus, size, with other points; 0 to 10.
"""

from renalseg.report.measure.results import Lesion
from renalseg.report.nephrometry.findings import Findings
from renalseg.report.nephrometry.kidney import Landmarks
from renalseg.report.nephrometry.renal import HALF, LARGE_MM, LETTERS, SMALL_MM, exophytic
from renalseg.report.nephrometry.results import Part, Score

TOUCHING_MM = 1.0
"""Up to this distance from the estimated sinus a lesion involves it. Ours: half of the sinus's grid."""

DENT_ML = 0.25
"""With this volume inside the sinus's convex hull a lesion displaces or infiltrates the collecting system. Ours: a ball
of 3 cm that reaches in by 2.4 mm; the collecting system itself is not labelled."""


def padua(lesion: Lesion, found: Findings | None, marks: Landmarks | None, reason: str) -> Score:
    """PADUA of ``lesion``; the arguments are those of ``renal``. The suffix is a, p or x."""
    parts = {
        "Polar location": _polar(found, marks, reason),
        "Exophytic rate": exophytic(lesion, found, (1, 2, 3), reason),
        "Renal rim": _rim(found, marks, (1, 2), reason),
        "Renal sinus": _sinus(found, (1, 2), reason),
        "Collecting system": _collecting_system(found, reason),
        "Tumor size": size(lesion, (1, 2, 3)),
    }
    return Score(parts, "" if found is None else LETTERS[lesion.face], (), "doi:10.1016/j.eururo.2009.07.040")


def spare(lesion: Lesion, found: Findings | None, marks: Landmarks | None, reason: str) -> Score:
    """SPARE of ``lesion``; the arguments are those of ``renal``."""
    parts = {
        "Exophytic rate": exophytic(lesion, found, (0, 1, 2), reason),
        "Renal rim": _rim(found, marks, (0, 1), reason),
        "Renal sinus": _sinus(found, (0, 3), reason),
        "Tumor size": size(lesion, (0, 2, 4)),
    }
    return Score(parts, "", (), "doi:10.1111/bju.14772")


def size(lesion: Lesion, points: tuple[int, int, int]) -> Part:
    """Size: at most 4 cm, up to 7 cm, larger. R of R.E.N.A.L. counts 7 cm itself as large, this does not."""
    mm, geometry = lesion.axial_diameter.mm, {"ends_ras_mm": lesion.axial_diameter.ends_ras_mm}
    if mm <= SMALL_MM:
        return Part(points[0], mm, "mm", f"{mm:.1f} mm across, at most {SMALL_MM:.0f} mm.", geometry)
    if mm <= LARGE_MM:
        return Part(points[1], mm, "mm", f"{mm:.1f} mm across, more than {SMALL_MM:.0f} mm.", geometry)
    return Part(points[2], mm, "mm", f"{mm:.1f} mm across, more than {LARGE_MM:.0f} mm.", geometry)


def _polar(found: Findings | None, marks: Landmarks | None, reason: str) -> Part:
    """Superior or inferior, or middle where more than half lies between the sinus lines."""
    if found is None or marks is None:
        return _untold("share", reason)
    geometry = {"upper_line_s_mm": marks.upper_mm, "lower_line_s_mm": marks.lower_mm}
    text = f"{found.between:.0%} of its volume lies between the sinus lines"
    if found.between > HALF:
        return Part(2, found.between, "share", f"{text}: middle.", geometry)
    return Part(1, found.between, "share", f"{text}: superior or inferior.", geometry)


def _rim(found: Findings | None, marks: Landmarks | None, points: tuple[int, int], reason: str) -> Part:
    """Lateral or medial, by the lesion's centre against the kidney's."""
    if found is None or marks is None:
        return _untold("mm", reason)
    centre, medial = marks.centre.tolist(), marks.medial.tolist()
    geometry = {"kidney_centre_ras_mm": centre, "medial_direction": medial}
    text = f"its centre lies {abs(found.medial_mm):.1f} mm to the"
    if found.medial_mm > 0:
        return Part(points[1], found.medial_mm, "mm", f"Medial: {text} hilum's side of the kidney's.", geometry)
    return Part(points[0], found.medial_mm, "mm", f"Lateral: {text} far side of the kidney's.", geometry)


def _sinus(found: Findings | None, points: tuple[int, int], reason: str) -> Part:
    """Whether the estimated sinus is involved."""
    if found is None:
        return _untold("mm", reason)
    geometry = {"lesion_ras_mm": found.nearest[0], "sinus_ras_mm": found.nearest[1]}
    text = f"{found.sinus_mm:.1f} mm from the estimated sinus"
    if found.sinus_mm <= TOUCHING_MM:
        return Part(points[1], found.sinus_mm, "mm", f"{text}: involved.", geometry)
    return Part(points[0], found.sinus_mm, "mm", f"{text}: not involved.", geometry)


def _collecting_system(found: Findings | None, reason: str) -> Part:
    """Whether the collecting system is displaced or infiltrated, presumed from a dent in the estimated sinus."""
    if found is None:
        return _untold("ml", reason)
    geometry = {} if found.dent is None else {"dent_centroid_ras_mm": found.dent}
    text = f"{found.dent_ml:.2f} ml lie within the hull of the estimated sinus"
    if found.dent_ml >= DENT_ML:
        return Part(2, found.dent_ml, "ml", f"{text}: displaced or infiltrated.", geometry)
    return Part(1, found.dent_ml, "ml", f"{text}: not involved.", geometry)


def _untold(unit: str, reason: str) -> Part:
    return Part(None, None, unit, f"Not told: {reason}.")
