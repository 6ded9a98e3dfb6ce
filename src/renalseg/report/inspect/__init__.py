"""The statistical analysis of a dataset: every case checked and measured, beside what KiTS23 holds.

``cases`` looks at one case, ``cohort`` at all of them, ``tables`` and ``figures`` write what was found.
"""

from renalseg.report.inspect.cohort import Inspection, inspect_dataset

__all__ = ["Inspection", "inspect_dataset"]
