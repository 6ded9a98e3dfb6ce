"""``nephrometry``: all scores of all lesions of a case."""

from collections.abc import Mapping

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.report.measure.results import Lesion, Measurements
from renalseg.report.nephrometry.centrality import centrality
from renalseg.report.nephrometry.findings import findings
from renalseg.report.nephrometry.kidney import KidneyFacts, kidney_facts
from renalseg.report.nephrometry.padua import padua, spare
from renalseg.report.nephrometry.renal import renal
from renalseg.report.nephrometry.results import Nephrometry
from renalseg.report.sides import kidney_sides


def nephrometry(
    labels: Volume, measurements: Measurements, kidneys: Mapping[str, KidneyFacts] | None = None
) -> tuple[Nephrometry, ...]:
    """R.E.N.A.L., PADUA, SPARE and C-index of each lesion, in the order of ``measurements.lesions``.

    A score has no total where the kidney may be cut off by the border of the volume or where the renal sinus, which the
    label map does not hold, could not be estimated; the size is told nevertheless.

    Args:
        labels: label map [z, y, x] on its grid; see ``core.labels``.
        measurements: of this very label map.
        kidneys: from ``kidneys_of``, where a caller has them already.

    Raises:
        InputError: the measurements are those of another label map.
    """
    facts = kidneys_of(labels, measurements) if kidneys is None else kidneys
    return tuple(_scores(lesion, labels, facts[lesion.side]) for lesion in measurements.lesions)


def kidneys_of(labels: Volume, measurements: Measurements) -> dict[str, KidneyFacts]:
    """The landmarks of the kidneys by side; only of those that have a lesion.

    Raises:
        InputError: the measurements are those of another label map.
    """
    measured = {kidney.side: kidney for kidney in measurements.kidneys}
    wanted = {lesion.side for lesion in measurements.lesions}
    kidneys = {kidney.side: kidney for kidney in kidney_sides(labels)}
    if set(kidneys) != set(measured) or not wanted <= set(kidneys):
        raise InputError(
            f"{labels.name}: the measurements have the kidneys {sorted(measured)}, the label map {sorted(kidneys)}; "
            "measure this label map again."
        )
    return {side: kidney_facts(kidneys[side], measured[side], labels) for side in sorted(wanted)}


def _scores(lesion: Lesion, labels: Volume, kidney: KidneyFacts) -> Nephrometry:
    marks, reason = kidney.landmarks, kidney.reason
    if lesion.detached:
        marks, reason = None, "the lesion is detached from the kidney"
    found = None if marks is None else findings(lesion, labels, marks)
    scores = {
        "R.E.N.A.L.": renal(lesion, found, marks, reason),
        "PADUA": padua(lesion, found, marks, reason),
        "SPARE": spare(lesion, found, marks, reason),
    }
    index = centrality(lesion, found, marks, reason)
    untold = [name for name, score in scores.items() if score.total is None]
    if index.value is None:
        untold.append("C-index")
    why = reason or "the kidney's contour could not be estimated"
    abstained = (f"{_listed(untold)} not told: {why}.",) if untold else ()
    return Nephrometry(lesion.id, scores["R.E.N.A.L."], scores["PADUA"], scores["SPARE"], index, abstained)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"
