"""The operations by name, and settings under which one of them acts alone."""

from typing import Any, Literal, get_args

from renalseg.config import Augmentation

Operation = Literal[
    "mirror",
    "scale",
    "depth crop",
    "elastic",
    "brightness",
    "contrast",
    "gamma",
    "lesion brightness",
    "lesion contrast",
    "lesion gamma",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""All operations, in the order in which they apply. The scale comes with its turn and shift."""


def only(name: Operation, config: Augmentation) -> Augmentation:
    """The settings with all operations but one turned off, and that one always on."""
    changes: dict[str, Any] = {
        "mirror_z": 0.0,
        "scale_probability": 0.0,
        "depth_crop_probability": 0.0,
        "elastic_probability": 0.0,
        "intensity_probability": 0.0,
        "lesion_intensity_probability": 0.0,
    }
    if name == "depth crop":
        changes["depth_crop_probability"] = 1.0
    elif name in ("mirror", "scale", "elastic"):
        changes[{"mirror": "mirror_z"}.get(name, f"{name}_probability")] = 1.0
    else:
        changes["lesion_intensity_probability" if name.startswith("lesion") else "intensity_probability"] = 1.0
        others = {"brightness", "contrast", "gamma"} - {name.removeprefix("lesion ")}
        changes |= dict.fromkeys(others, (1.0, 1.0))
    return Augmentation(**(config.model_dump() | changes))
