"""The operations by name, and settings under which one of them acts alone."""

from typing import Any, Literal, get_args

from renalseg.config import Augmentation

Operation = Literal[
    "mirror",
    "mirror x",
    "scale",
    "depth crop",
    "elastic",
    "brightness",
    "contrast",
    "gamma",
    "lesion brightness",
    "lesion contrast",
    "lesion gamma",
    "noise",
]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
"""All operations, in the order in which they apply. The scale comes with its turn and shift."""

PROBABILITIES: dict[Operation, str] = {
    "mirror": "mirror_z",
    "mirror x": "mirror_x",
    "scale": "scale_probability",
    "depth crop": "depth_crop_probability",
    "elastic": "elastic_probability",
    "brightness": "intensity_probability",
    "contrast": "intensity_probability",
    "gamma": "intensity_probability",
    "lesion brightness": "lesion_intensity_probability",
    "lesion contrast": "lesion_intensity_probability",
    "lesion gamma": "lesion_intensity_probability",
    "noise": "noise_probability",
}
"""The setting that says how often an operation applies."""


def only(name: Operation, config: Augmentation) -> Augmentation:
    """The settings with all operations but one turned off, and that one always on."""
    changes: dict[str, Any] = dict.fromkeys(PROBABILITIES.values(), 0.0)
    changes[PROBABILITIES[name]] = 1.0
    factors = {"brightness", "contrast", "gamma"}
    if (kind := name.removeprefix("lesion ")) in factors:
        changes |= dict.fromkeys(factors - {kind}, (1.0, 1.0))
    return Augmentation(**(config.model_dump() | changes))


def is_on(name: Operation, config: Augmentation) -> bool:
    """Whether an operation ever applies."""
    return bool(getattr(config, PROBABILITIES[name]) > 0)
