"""Every number of the method, once, with its source; frozen, validated, hashed, YAML in and out.

A field's ``description`` ends with where its value comes from: the paper (Chen & Zhang, KiTS23, "An Ensemble of 2.5D
ResUnet Based Models for Segmentation of Kidney and Masses"), "settled" where the paper is silent and the project chose,
or "measured" where a measurement decided.
"""

from renalseg.config.presets import LIGHT, PAPER, PRESETS, TINY, preset
from renalseg.config.settings import (
    STAGES,
    Augmentation,
    Clean,
    Coarse,
    Fine,
    Intensity,
    Network,
    Preparation,
    Size3,
    Stage,
    Training,
)
from renalseg.config.system import Config, load_config, sha256_today

__all__ = [
    "LIGHT",
    "PAPER",
    "PRESETS",
    "STAGES",
    "TINY",
    "Augmentation",
    "Clean",
    "Coarse",
    "Config",
    "Fine",
    "Intensity",
    "Network",
    "Preparation",
    "Size3",
    "Stage",
    "Training",
    "load_config",
    "preset",
    "sha256_today",
]
