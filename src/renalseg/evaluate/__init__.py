"""Scores by the official KiTS23 rules: Dice and surface Dice per evaluation class, per case and per cohort."""

from renalseg.evaluate.cohort import evaluate
from renalseg.evaluate.metrics import CaseMetrics, case_metrics, dice
from renalseg.evaluate.surface import surface_dice
from renalseg.evaluate.tables import CohortResult, write_tables

__all__ = ["CaseMetrics", "CohortResult", "case_metrics", "dice", "evaluate", "surface_dice", "write_tables"]
