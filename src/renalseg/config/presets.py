"""The presets: the paper's system, two cheaper ones on its fine grid, and one for a laptop."""

from typing import Any

from renalseg.config.settings import Augmentation, Clean, Coarse, Fine, Network, Size3, Training
from renalseg.config.system import Config
from renalseg.core.errors import ConfigError


def _coarse(widths: tuple[int, ...], stem: Size3 = (1, 1, 1)) -> Network:
    """Coarse network: isotropic kernels and down-sampling (paper 2.2, table in the method notes)."""
    levels = len(widths)
    return Network(
        classes=("background", "kidney"),
        widths=widths,
        kernels=((3, 3, 3),) * levels,
        strides=((2, 2, 2),) * (levels - 1),
        stem=stem,
    )


def _fine(widths: tuple[int, ...], classes: tuple[str, ...], stem: Size3 = (1, 1, 1)) -> Network:
    """Fine network, 2.5D: (1, 3, 3) in the two high-resolution levels, (3, 3, 3) deeper; settled. Strides: Fig. 2."""
    return Network(
        classes=classes,
        widths=widths,
        kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 2, 2),) * 3,
        stem=stem,
    )


_KIDNEY = ("background", "kidney")
_LESION = ("other kidney", "tumor", "cyst")


def _training(patch: Size3, epochs: int, classes: int, **changes: Any) -> Training:
    weights = (1.0, 1.0) if classes == 2 else (1.0, 2.0, 2.0)
    return Training(patch=patch, epochs=epochs, class_weights=weights, **changes)


PAPER = Config(
    name="paper",
    coarse=Coarse(shape=(128, 128, 128), network=_coarse((16, 32, 64, 128, 256))),
    fine=Fine(in_plane=(224, 384), kidney=_fine((16, 32, 64, 128), _KIDNEY), lesion=_fine((16, 32, 64, 128), _LESION)),
    clean=Clean(min_voxels=10000),
    training={
        "coarse": _training((128, 128, 128), 300, 2),
        "kidney": _training((48, 224, 384), 600, 2),
        "lesion": _training((48, 224, 384), 600, 3),
    },
)
"""The paper's system. Widths are ours, chosen so that a median case costs about 4 TFLOP."""

LIGHT = Config(
    name="light",
    coarse=Coarse(shape=(96, 96, 96), network=_coarse((16, 32, 64, 96))),
    fine=Fine(in_plane=(224, 384), kidney=_fine((16, 24, 32, 64), _KIDNEY), lesion=_fine((16, 24, 32, 64), _LESION)),
    clean=Clean(min_mm3=20000.0),
    training={
        "coarse": _training((96, 96, 96), 300, 2, augmentation=Augmentation(depth_crop=0.2)),
        "kidney": _training((48, 224, 384), 600, 2),
        "lesion": _training((48, 224, 384), 600, 3),
    },
)
"""The paper's grid with narrower networks."""

FAST = Config(
    name="fast",
    coarse=Coarse(shape=(128, 128, 128), network=_coarse((16, 32, 64, 128), (2, 2, 2))),
    fine=Fine(
        in_plane=(224, 384),
        kidney=_fine((32, 48, 64, 96), _KIDNEY, (1, 2, 2)),
        lesion=_fine((32, 48, 64, 96), _LESION, (1, 2, 2)),
    ),
    clean=Clean(min_mm3=20000.0),
    training={
        "coarse": _training((128, 128, 128), 300, 2, augmentation=Augmentation(depth_crop=0.2)),
        "kidney": _training((48, 224, 384), 600, 2),
        "lesion": _training((48, 224, 384), 600, 3),
    },
)
"""The paper's grid; the stem turns blocks of voxels into channels, so that no convolution runs at full resolution."""

_SHORT: dict[str, Any] = {"learning_rate": 2e-3, "batch": 2, "hard_voxels": 1.0, "mixup_probability": 0.0}
_MILD: dict[str, Any] = {"intensity_probability": 0.5, "lesion_intensity_probability": 0.3, "elastic_probability": 0.2}
"""For a schedule of minutes: with the paper's, of days, no network of a thousand steps fits even its training cases."""

_COARSE_DATA: dict[str, Any] = {**_MILD, "depth_crop": 0.2, "intensity_probability": 0.0}
"""Organs as they were, so that a few dozen cases tell a kidney from spleen and liver: docs/benchmarks.md."""

_LESION_DATA: dict[str, Any] = {
    **_MILD, "mirror_x": 0.5, "noise_probability": 0.5, "rotate_degrees": 20.0, "depth_crop": 0.35,
    "lesion_intensity_probability": 0.0,
}  # fmt: skip
"""Against learning a few dozen lesions by heart: docs/benchmarks.md."""

TINY = Config(
    name="tiny",
    coarse=Coarse(shape=(48, 48, 48), network=_coarse((16, 32, 64, 96), (2, 2, 2))),
    fine=Fine(
        in_plane=(64, 96),
        window=24,  # nearer to the patches of 16 slices that the norms' statistics are learnt on: docs/benchmarks.md
        kidney=_fine((32, 48, 64, 96), _KIDNEY, (1, 2, 2)),
        lesion=_fine((32, 48, 64, 96), _LESION, (1, 2, 2)),
    ),
    clean=Clean(min_mm3=20000.0),
    training={
        "coarse": _training((48, 48, 48), 60, 2, **_SHORT, augmentation=Augmentation(**_COARSE_DATA)),
        "kidney": _training((16, 64, 96), 60, 2, **_SHORT, augmentation=Augmentation(**_MILD)),
        "lesion": _training(
            (16, 64, 96),
            60,
            3,
            **_SHORT,
            paste_probability=0.6,
            start_from="kidney",
            ignore_beyond_mm=100.0,  # so that organs which the kidney network takes for kidney are not called tumor
            augmentation=Augmentation(**_LESION_DATA),
        ),
    },
)
"""A quarter of the paper's resolution, and stems: what two CPU cores train in under an hour, without bf16 too."""

PRESETS: dict[str, Config] = {"paper": PAPER, "light": LIGHT, "fast": FAST, "tiny": TINY}


def preset(name: str) -> Config:
    """A configuration by name.

    Raises:
        ConfigError: there is no such preset; the message lists them.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
