"""A configuration that trains in seconds, and a small dataset to train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renalseg.config import STAGES, Coarse, Config, Fine, Network, Stage, Training, preset
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases
from renalseg.io.nifti import write_nifti
from renalseg.model.runtime import Runtime
from renalseg.train.cache import grid_of, prepare
from renalseg.train.loop import Run

SPACING_MM = (5.0, 4.0, 4.0)
PLANE = (16, 24)
PATCHES = {"coarse": (16, 16, 16), "kidney": (8, *PLANE), "lesion": (8, *PLANE)}


def _network(classes: tuple[str, ...], kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Network:
    return Network(classes=classes, widths=(4, 6), kernels=(kernel, (3, 3, 3)), strides=(stride,))


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """Makes a whole configuration of two-level networks; keywords change the training of all three stages."""

    def make(**changes: Any) -> Config:
        training = {}
        for stage in STAGES:
            settings = {"epochs": 4, "batch": 2, "learning_rate": 1e-3, "validate_every": 2, "seed": 7} | changes
            weights = (1.0, 2.0, 2.0) if stage == "lesion" else (1.0, 1.0)
            training[stage] = Training(patch=PATCHES[stage], class_weights=weights, **settings)
        lesion = ("other kidney", "tumor", "cyst")
        return Config(
            name="minute",
            coarse=Coarse(
                shape=PATCHES["coarse"],
                min_component_mm3=5000,
                network=_network(("background", "kidney"), (3, 3, 3), (2, 2, 2)),
            ),
            fine=Fine(
                in_plane=PLANE,
                window=8,
                kidney=_network(("background", "kidney"), (1, 3, 3), (1, 2, 2)),
                lesion=_network(lesion, (1, 3, 3), (1, 2, 2)),
            ),
            clean=preset("tiny").clean,
            training=training,
        )

    return make


def paint(seed: int, kidneys: bool = True) -> tuple[Volume, Volume]:
    """CT and labels [24, 48, 48]: two ellipsoid kidneys, a tumor in one and a cyst in the other."""
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.arange(n) for n in (24, 48, 48)), indexing="ij")
    labels = np.zeros((24, 48, 48), np.uint8)
    for side, label in ((14, 2), (34, 3)):
        cz, cy, cx = (c + float(generator.uniform(-1, 1)) for c in (12, 26, side))
        labels[((z - cz) / 7) ** 2 + ((y - cy) / 6) ** 2 + ((x - cx) / 6) ** 2 < 1] = 1
        labels[((z - cz) / 3) ** 2 + ((y - cy) / 3) ** 2 + ((x - cx) / 3) ** 2 < 1] = label
    if not kidneys:
        labels[:] = 0
    hu = np.array([-50, 180, 90, 10])[labels] + generator.normal(0, 10, labels.shape)
    return Volume.from_array(hu.astype(np.int16), SPACING_MM), Volume.from_array(labels, SPACING_MM)


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Writes a dataset in KiTS23 layout; the last ``empty`` cases hold no kidneys."""

    def write(folder: Path, cases: int, empty: int = 0) -> Path:
        for i in range(cases):
            ct, labels = paint(i, kidneys=i < cases - empty)
            (folder / f"case_{i:05d}").mkdir(parents=True)
            write_nifti(ct, folder / f"case_{i:05d}" / "imaging.nii.gz")
            write_nifti(labels, folder / f"case_{i:05d}" / "segmentation.nii.gz")
        return folder

    return write


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path]) -> Path:
    """Three cases; not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("kits"), 3)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Makes a run over the first ``cases`` of a dataset, in fp32 on the CPU; keywords are fields of ``Run``."""

    def make(stage: Stage, dataset: Path, out: Path, config: Config, cases: int = 1, **changes: Any) -> Run:
        ids = [case.case_id for case in list_cases(dataset)][:cases]
        prepared = prepare(dataset, out / "cache", [grid_of(stage)], config, ids)[grid_of(stage)]
        changes = {"runtime": Runtime(torch.device("cpu"), "fp32"), "trained_on": {"dataset": "test"}} | changes
        return Run(stage=stage, config=config, cases=prepared, out=out, **changes)

    return make
