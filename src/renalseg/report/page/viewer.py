"""What the page hands to the viewer (NiiVue, vendored), as JSON."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from renalseg.core.labels import LABELS
from renalseg.report.page.scene import Scene

NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


@dataclass(frozen=True)
class Window:
    """A window preset in HU."""

    name: str
    width: int
    level: int


WINDOWS = (Window("Abdomen", 400, 40), Window("Narrow", 200, 60), Window("Wide", 700, 100))
"""The first is shown at the start. All lie within what the scene's 8 bits hold."""


def payload(scene: Scene, start: list[float] | None) -> Mapping[str, Any]:
    """JSON-ready: both volumes, the colours of the label table and where to look first.

    Args:
        scene: CT and labels.
        start: a point in RAS mm; None for the middle.
    """
    colours = [(0, 0, 0, 0), *((*label.colour, 255) for label in LABELS)]
    red, green, blue, alpha = (list(channel) for channel in zip(*colours, strict=True))
    names = ["background", *(label.name for label in LABELS)]
    return {
        "ct": b64encode(scene.ct).decode(),
        "labels": b64encode(scene.labels).decode(),
        "colours": {"R": red, "G": green, "B": blue, "A": alpha, "I": list(range(len(names))), "labels": names},
        "window": [WINDOWS[0].level - WINDOWS[0].width / 2, WINDOWS[0].level + WINDOWS[0].width / 2],
        "start": start,
    }
