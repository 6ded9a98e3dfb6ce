"""Training samples a second on the CPU: ours beside MONAI's usual route, on the same data, in one process each.

    python benchmarks/loader_vs_monai.py --data DATASET [--preset paper] [--stage lesion] [--samples 24]

MONAI's route is a ``CacheDataset`` (everything before the random transforms held in memory, which favours it) with
dictionary transforms: load, orient, scale, crop to the kidneys with the margin, resample in plane, then the paper's
augmentation with the same ranges and probabilities: mirror, crop of slices, affine, ``Rand3DElasticd``, brightness,
contrast and gamma, and the three again inside lesions. Ours reads the cache of ``renalseg prepare`` from disk. Mixup is
off on both sides. The two take turns, a sample each; the table gives medians, means and their ratios.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    MapTransform,
    Orientationd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandomizableTransform,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSpatialCropd,
    Resized,
    ScaleIntensityRanged,
)

from renalseg.config import Config, Stage, preset
from renalseg.io.kits import list_cases, read_case
from renalseg.train.cache import grid_of, prepare
from renalseg.train.dataset import Key, Patches

BOTH = ("image", "label")
MODES = ("bilinear", "nearest")


class InsideLesions(RandomizableTransform, MapTransform):
    """Applies a dictionary transform of the image to tumor and to cyst voxels alone, each with a draw of its own."""

    def __init__(self, transform: MapTransform) -> None:
        MapTransform.__init__(self, ["image"])
        RandomizableTransform.__init__(self, 1.0)
        self.transform = transform

    def set_random_state(self, seed=None, state=None):
        """Seeds the wrapped transform too."""
        self.transform.set_random_state(seed, state)
        return super().set_random_state(seed, state)

    def __call__(self, data: dict) -> dict:
        """Changes the image of ``data`` inside lesions."""
        for label in (2, 3):
            inside = data["label"] == label
            if inside.any():
                changed = self.transform({"image": data["image"]})["image"]
                data["image"] = torch.where(inside, changed, data["image"])
        return data


def monai_dataset(dataset: Path, config: Config, stage: Stage, folder: Path) -> CacheDataset:
    """MONAI's cached dataset with the paper's augmentation."""
    settings, a = config.training[stage], config.training[stage].augmentation
    y, x = config.fine.in_plane
    margin = [config.coarse.margin_mm[0], config.coarse.margin_mm[1], config.coarse.margin_mm[2]]

    def intensity(probability: float) -> list:
        low, high = a.brightness
        shift = {"factors": (low - 1, high - 1), "prob": probability}
        return [
            RandScaleIntensityd("image", **shift),
            RandScaleIntensityFixedMeand("image", **shift),
            RandAdjustContrastd("image", prob=probability, gamma=a.gamma),
        ]

    items = []
    for case in list_cases(dataset):
        ct, _ = read_case(case)
        items.append({"image": str(case.imaging), "label": str(case.segmentation), "spacing": ct.spacing_mm})
    coarsest = np.max(
        [item["spacing"] for item in items], axis=0
    )  # one margin in voxels for all: the smallest, as favours it
    pad = [int(np.ceil(m / s)) for m, s in zip(margin, coarsest, strict=True)]
    low, high = config.intensity.clip_hu
    shrink = (1 / a.scale[1] - 1, 1 / a.scale[0] - 1)
    fixed = [
        LoadImaged(BOTH, image_only=True),
        EnsureChannelFirstd(BOTH),
        Orientationd(BOTH, "IPL", labels=None),
        ScaleIntensityRanged("image", low, high, -1.0, 1.0, clip=True),
        CropForegroundd(BOTH, source_key="label", margin=pad, allow_smaller=True),
        Resized(BOTH, (-1, y, x), mode=("trilinear", "nearest")),
    ]
    random = [
        RandSpatialCropd(BOTH, (settings.patch[0], y, x), random_size=False),
        RandFlipd(BOTH, prob=a.mirror_z, spatial_axis=0),
        RandAffined(
            BOTH,
            prob=a.scale_probability,
            rotate_range=(np.deg2rad(a.rotate_degrees), 0, 0),
            translate_range=(0, a.shift * y, a.shift * x),
            scale_range=((0, 0), shrink, shrink),
            mode=MODES,
            padding_mode="border",
        ),
        Rand3DElasticd(
            BOTH,
            a.elastic_sigma,
            a.elastic_magnitude,
            prob=a.elastic_probability,
            mode=MODES,
            padding_mode="border",
        ),
        *intensity(a.intensity_probability),
        *(InsideLesions(t) for t in intensity(a.lesion_intensity_probability)),
        Lambdad("image", lambda image: image.clamp(-1, 1)),
    ]
    transform = Compose([*fixed, *random])
    transform.set_random_state(0)
    return CacheDataset(items, transform, cache_rate=1.0, num_workers=1, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--stage", default="lesion", choices=["kidney", "lesion"])
    parser.add_argument("--samples", type=int, default=24)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, stage = preset(arguments.preset), arguments.stage
    config = config.model_copy(
        update={"training": {s: t.model_copy(update={"mixup_probability": 0.0}) for s, t in config.training.items()}}
    )
    ids = [c.case_id for c in list_cases(arguments.data)]
    with tempfile.TemporaryDirectory() as folder:
        grid = grid_of(stage)
        cases = prepare(arguments.data, Path(folder), [grid], config, ids)[grid]
        ours, theirs = (
            Patches(cases, stage, config.training[stage]),
            monai_dataset(arguments.data, config, stage, Path(folder)),
        )
        seconds: dict[str, list[float]] = {"renalseg": [], "MONAI": []}
        for i in range(arguments.samples + 1):
            case = i % len(ids)
            for name, source, key in (("renalseg", ours, Key(0, i, case)), ("MONAI", theirs, case)):
                started = time.perf_counter()
                source[key]
                seconds[name].append(time.perf_counter() - started)
    print("| route | s a sample, median | mean | samples a second (mean) |\n|---|---|---|---|")
    medians, means = {}, {}
    for name, found in seconds.items():
        medians[name], means[name] = float(np.median(found[1:])), float(np.mean(found[1:]))
        print(f"| {name} | {medians[name]:.3f} | {means[name]:.3f} | {1 / means[name]:.2f} |")
    print(f"\nratio: {medians['MONAI'] / medians['renalseg']:.1f} by the medians, ", end="")
    print(f"{means['MONAI'] / means['renalseg']:.1f} by the means, {arguments.samples} samples, one thread")


if __name__ == "__main__":
    main()
