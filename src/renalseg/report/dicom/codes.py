"""The coded terms of DICOM SEG and SR: what is segmented, where, what is measured and how. Nothing else names a code.

Terms and context groups: DICOM PS3.16 (https://dicom.nema.org/medical/dicom/current/output/html/part16.html).
"""

from dataclasses import dataclass
from typing import Any

from pydicom.sr.coding import Code

from renalseg.core.labels import CYST, KIDNEY, LABELS, TUMOR

SNOMED, DICOM, UCUM = "SCT", "DCM", "UCUM"
PRIVATE = "99RENALSEG"
"""Coding scheme of what no standard term says: how exactly a diameter was measured. "99" marks a private scheme."""

ANATOMY = Code("91723000", SNOMED, "Anatomical Structure")
ABNORMALITY = Code("49755003", SNOMED, "Morphologically Abnormal Structure")
SIDES = {
    "right": Code("24028007", SNOMED, "Right"),
    "left": Code("7771000", SNOMED, "Left"),
    "both": Code("51440002", SNOMED, "Bilateral"),
}
"""Laterality by the side that measurements state; CID 244."""

_MEANINGS = {KIDNEY: "Kidney", TUMOR: "Neoplasm", CYST: "Cyst"}
TYPES = {label.id: Code(label.snomed, SNOMED, _MEANINGS[label.id]) for label in LABELS}
"""What a segment shows, by label; the codes are those of the label table."""

KIDNEY_SITE = TYPES[KIDNEY]
AI_FAMILY = Code("123110", DICOM, "Artificial Intelligence")
REPORT_TITLE = Code("126000", DICOM, "Imaging Measurement Report")
PROCEDURE = Code("77477000", SNOMED, "Computed tomography")
DEVICE = Code("121007", DICOM, "Device")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")

_MM = Code("mm", UCUM, "millimeter")
_CM3 = Code("cm3", UCUM, "cubic centimeter")
_HU = Code("[hnsf'U]", UCUM, "Hounsfield unit")
_MEAN = Code("373098007", SNOMED, "Mean")
_SD = Code("386136009", SNOMED, "Standard Deviation")
_MAXIMUM = Code("56851009", SNOMED, "Maximum")
_LENGTH = Code("410668003", SNOMED, "Length")
_ATTENUATION = Code("112031", DICOM, "Attenuation Coefficient")
_VOXELS = Code("YEKZ", "IBSI", "Volume from Voxel Summation")
_AXIAL = Code("axial-diameter", PRIVATE, "Largest diameter within one axial slice")
_DIAMETER_3D = Code("diameter-3d", PRIVATE, "Largest diameter in any direction")
_CRANIOCAUDAL = Code("craniocaudal", PRIVATE, "Extent from cranial to caudal")


@dataclass(frozen=True)
class Quantity:
    """One measurement of a group.

    Attributes:
        keys: where its value stands in the dictionary of measurements; a value that is None is left out.
        name, unit: what is measured, and in which unit.
        derivation: which of several values it is, e.g. the maximum, or None.
        method: how it was measured, or None.
    """

    keys: tuple[str, ...]
    name: Code
    unit: Code
    derivation: Code | None = None
    method: Code | None = None

    def value(self, measured: Any) -> float | None:
        """Its value in the dictionary of a lesion or kidney; None where it could not be had."""
        for key in self.keys:
            if measured is None:
                return None
            measured = measured.get(key)
        return None if measured is None else float(measured)


LESION_QUANTITIES = (
    Quantity(("volume_ml",), Code("118565006", SNOMED, "Volume"), _CM3, method=_VOXELS),
    Quantity(("axial_diameter", "mm"), Code("103339001", SNOMED, "Long axis"), _MM, _MAXIMUM, _AXIAL),
    Quantity(("diameter_3d", "mm"), Code("81827009", SNOMED, "Diameter"), _MM, _MAXIMUM, _DIAMETER_3D),
    Quantity(("craniocaudal_mm",), _LENGTH, _MM, method=_CRANIOCAUDAL),
    Quantity(("hu", "mean"), _ATTENUATION, _HU, _MEAN),
    Quantity(("hu", "sd"), _ATTENUATION, _HU, _SD),
)
"""Of a lesion's group. Names of sizes are of CID 7470 and 7472, units of CID 7460 and 7462: 1 ml is 1 cm3."""

KIDNEY_QUANTITIES = (
    Quantity(("volumes_ml", "parenchyma"), Code("118565006", SNOMED, "Volume"), _CM3, method=_VOXELS),
    Quantity(("length_mm",), _LENGTH, _MM, method=_CRANIOCAUDAL),
)
"""Of a kidney's group: of the parenchyma alone, as its segment is."""
