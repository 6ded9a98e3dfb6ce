"""The centrality index: Simmons et al. 2010, doi:10.1016/j.juro.2010.01.005.

The distance between the centres of tumor and kidney, by the tumor's radius: 1 or less where the tumor reaches the
kidney's centre, the larger the farther out and the smaller the tumor.
"""

from renalseg.report.measure.results import Lesion
from renalseg.report.nephrometry.findings import Findings
from renalseg.report.nephrometry.kidney import Landmarks
from renalseg.report.nephrometry.results import Centrality


def centrality(lesion: Lesion, found: Findings | None, marks: Landmarks | None, reason: str) -> Centrality:
    """The C-index of ``lesion``; the arguments are those of ``renal``.

    The kidney's centre is the middle of its estimated contour's cross-section at the axial midline; the tumor's is its
    centroid, its radius half of the largest axial diameter.
    """
    if found is None or marks is None:
        return Centrality(None, f"Not told: {reason}.")
    radius = lesion.axial_diameter.mm / 2
    geometry = {"kidney_centre_ras_mm": marks.centre.tolist(), "lesion_centre_ras_mm": lesion.centroid_ras_mm}
    text = f"The centres lie {found.centre_mm:.1f} mm apart, and the lesion's radius is {radius:.1f} mm."
    return Centrality(found.centre_mm / radius, text, found.centre_mm, radius, geometry)
