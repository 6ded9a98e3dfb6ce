"""Nephrometry: R.E.N.A.L., PADUA, SPARE and C-index of each lesion, each part with the geometry that it rests on.

Research use only. Not a medical device.
"""

from renalseg.report.nephrometry.results import Centrality, Nephrometry, Part, Score
from renalseg.report.nephrometry.score import kidneys_of, nephrometry
from renalseg.report.nephrometry.sketch import sketch

__all__ = ["Centrality", "Nephrometry", "Part", "Score", "kidneys_of", "nephrometry", "sketch"]
