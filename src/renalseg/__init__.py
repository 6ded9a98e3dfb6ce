"""renalseg: kidneys, renal tumors and cysts in abdominal CT. Research use only, not a medical device.

The public list is below; importing the package itself costs nothing, each name loads what it needs when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renalseg.core.volume import Segmentation, Volume
    from renalseg.io.read import read_volume
    from renalseg.predict.segmenter import Segmenter, segment

__version__ = "0.1.0"

_PUBLIC = {
    "Segmentation": "renalseg.core.volume",
    "Segmenter": "renalseg.predict.segmenter",
    "Volume": "renalseg.core.volume",
    "read_volume": "renalseg.io.read",
    "segment": "renalseg.predict.segmenter",
}

__all__ = ["Segmentation", "Segmenter", "Volume", "__version__", "read_volume", "segment"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'renalseg' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
