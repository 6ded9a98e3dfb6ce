"""DICOM results: a Segmentation (SEG) and a structured report of measurements (SR, TID 1500) beside the source series.

Research use only. Not a medical device.
"""

from renalseg.report.dicom.source import check_source
from renalseg.report.dicom.write import (
    DicomCase,
    build_dicom,
    dicom_files,
    save_dicom,
    write_dicom,
    write_seg,
    write_sr,
)

__all__ = [
    "DicomCase",
    "build_dicom",
    "check_source",
    "dicom_files",
    "save_dicom",
    "write_dicom",
    "write_seg",
    "write_sr",
]
