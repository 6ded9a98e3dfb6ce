"""Measurements of a label map: kidneys and lesions with volumes, diameters, position, contact and HU.

Research use only. Not a medical device.
"""

from renalseg.report.measure.case import measure
from renalseg.report.measure.lesions import lesion_mask
from renalseg.report.measure.results import Diameter, KidneyMeasures, Lesion, Measurements, PolarLines, schema

__all__ = ["Diameter", "KidneyMeasures", "Lesion", "Measurements", "PolarLines", "lesion_mask", "measure", "schema"]
