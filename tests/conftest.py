"""Fixtures for all tests."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from renalseg.config import Config, Network
    from renalseg.model.resunet import ResUnet

REPOSITORY = Path(__file__).parents[1]

# No deadline: a busy machine is no defect. 50 examples keep the quick tests quick.
hypothesis.settings.register_profile("renalseg", deadline=None, max_examples=50)
hypothesis.settings.load_profile("renalseg")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process; exit code, stdout, stderr."""
    from renalseg.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["renalseg", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "250")
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Loads a script that is no part of the package, by its path in the repository; its ``main`` does not run."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def benchmark_script(
    load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ModuleType]:
    """Loads a script of ``benchmarks/`` by its name, with arguments for its ``main``."""

    def load(name: str, *arguments: object) -> ModuleType:
        monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")  # some use each other
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of MONAI's imports
            return load_script(f"benchmarks/{name}")

    return load


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the checkout (real CT, KiTS23 label maps); the test is skipped where absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session")
def small_config() -> Config:
    """A whole system on the smallest grids: two levels a network, 2.5D in the fine stages; milliseconds a case."""
    from renalseg.config import Config

    def network(kernels: list, stride: list, *classes: str) -> dict:
        return {"classes": classes, "widths": [4, 6], "kernels": kernels, "strides": [stride]}

    flat = [[1, 3, 3], [3, 3, 3]]
    return Config.model_validate(
        {
            "name": "small",
            "coarse": {
                "min_component_mm3": 5000,
                "shape": [16, 16, 16],
                "network": network([[3, 3, 3]] * 2, [2, 2, 2], "background", "kidney"),
            },
            "fine": {
                "in_plane": [16, 32],
                "window": 8,
                "kidney": network(flat, [1, 2, 2], "background", "kidney"),
                "lesion": network(flat, [1, 2, 2], "other kidney", "tumor", "cyst"),
            },
            "clean": {"min_mm3": 5000.0},
            "training": {
                "coarse": {"patch": [16, 16, 16], "epochs": 1, "batch": 1, "class_weights": [1, 1]},
                "kidney": {"patch": [8, 16, 32], "epochs": 1, "batch": 1, "class_weights": [1, 1]},
                "lesion": {"patch": [8, 16, 32], "epochs": 1, "batch": 1, "class_weights": [1, 2, 2]},
            },
        }
    )


@pytest.fixture(scope="session")
def small_weights(small_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder of ``small_config`` that thresholds HU: kidney from 100, of it tumor from 200, cyst from 300.

    Real networks, real files: the branches of the residual blocks answer 0, the shortcuts carry the image through.
    """
    from renalseg.config import STAGES
    from renalseg.model.checkpoint import save_stage

    folder = tmp_path_factory.mktemp("weights") / "small"
    for stage in STAGES:
        save_stage(folder, small_config, stage, _threshold_network(small_config.network(stage)), {"cases": 0})
    return folder


def _threshold_network(config: Network) -> ResUnet:
    """A network whose logits are straight lines over the normalised intensity, steep at the thresholds."""
    import torch

    from renalseg.model.resunet import build

    slopes = {2: [0.0, 100.0], 3: [0.0, 100.0, 200.0]}[len(config.classes)]
    offsets = {2: [0.0, 0.0], 3: [0.0, -100 / 3, -100.0]}[len(config.classes)]
    network = build(config)
    with torch.no_grad():
        for module in network.modules():
            for parameter in module.parameters(recurse=False):
                parameter.zero_()
        # Two channels, x and -x: leaky ReLUs keep their difference proportional to x.
        network.encoder[0][0].shortcut.weight[:2, 0, 0, 0, 0] = torch.tensor([1.0, -1.0])
        skip = config.widths[0]
        network.decoder[-1].shortcut.weight[:2, skip : skip + 2, 0, 0, 0] = torch.eye(2)
        network.head.weight[:, 0, 0, 0, 0] = torch.tensor(slopes)
        network.head.weight[:, 1, 0, 0, 0] = -torch.tensor(slopes)
        network.head.bias.copy_(torch.tensor(offsets))
    return network
