"""What made a result, as DICOM SEG and SR state it."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.uid import generate_uid

from renalseg import __version__
from renalseg.core.notice import NOTICE

MANUFACTURER = "The renalseg authors"

CHARACTER_SET = "ISO_IR 192"
"""Results are in UTF-8, which can hold the names of any source; PS3.3 C.12.1.1.2."""


@dataclass(frozen=True)
class Algorithm:
    """The software and its weights.

    Attributes:
        version: of renalseg.
        weights_sha256: of the weights; None where the record does not name them.
        preset: of the configuration; None where the record does not name it.
    """

    version: str
    weights_sha256: str | None
    preset: str | None
    name: str = "renalseg"

    @property
    def parameters(self) -> dict[str, str]:
        """What the algorithm identification lists: the notice, preset and weights where known."""
        known = {"notice": NOTICE, "preset": self.preset, "weights_sha256": self.weights_sha256}
        return {key: value for key, value in known.items() if value is not None}

    def instance(self) -> dict[str, Any]:
        """What highdicom asks for every object: what made it, and UIDs of its own, new each time."""
        return {
            "series_instance_uid": generate_uid(prefix=None),
            "sop_instance_uid": generate_uid(prefix=None),
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": self.name,
            "software_versions": self.version,
            "device_serial_number": self.weights_sha256 or "unknown",
            "specific_character_set": CHARACTER_SET,
        }

    @property
    def device_uid(self) -> str:
        """A UID of this version with these weights, the same wherever it runs: PS3.5 B.2, from a name-based UUID."""
        name = f"renalseg/{self.version}/{self.weights_sha256}"
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def algorithm_of(record: Mapping[str, Any] | None) -> Algorithm:
    """The algorithm by a case's record; without one, this version of renalseg and unknown weights."""
    record = record or {}
    return Algorithm(
        version=str(record.get("renalseg") or __version__),
        weights_sha256=record.get("weights_sha256"),
        preset=record.get("preset"),
    )
