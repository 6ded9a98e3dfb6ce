"""MONAI's DynUNet in our cascade, beside our own networks: same data, same recipe, same minutes.

    python benchmarks/learning.py --labels KITS23_LABELS --work DIR
    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/dynunet_peer.py --work DIR

DIR is that of ``learning.py``, whose phantoms, cache, settings and coarse network are taken over. Kidney and lesion
stage are trained anew by our loop, loss and augmentation, but with a ``DynUNet`` of MONAI's default widths: five
levels, in-plane kernels in the upper two as our networks have them, z halved twice. It gets as many epochs as fit the
seconds that ours had, by the time of a trial. Both cascades are scored on the test phantoms. DIR/dynunet.md is the
table. A stage that is trained already is not trained again, and one that was interrupted goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from monai.networks.nets.dynunet import DynUNet
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from renalseg.config import Config, Network, Stage
from renalseg.core.labels import HECS
from renalseg.io.files import write_json, write_text
from renalseg.io.kits import list_cases
from renalseg.model.checkpoint import open_weights
from renalseg.model.runtime import Runtime, choose
from renalseg.predict.pipeline import Models
from renalseg.train.index import open_cache
from renalseg.train.loop import Run, train
from renalseg.train.parallel import World, join
from renalseg.train.validate import make_validator

STAGES: tuple[Stage, ...] = ("kidney", "lesion")
KERNELS = [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
STRIDES = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)]
DIVISOR = (4, 16, 16)
HEAD = "network.output_block."
TRIAL = 3


class Peer(nn.Module):
    """A DynUNet that takes any number of slices: padded at the end to what its strides divide, and cut again."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = DynUNet(3, 1, classes, KERNELS, STRIDES, STRIDES[1:])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes, z, y, x] of ``image`` float [n, 1, z, y, x]."""
        z, y, x = image.shape[2:]
        dz, dy, dx = (-n % d for n, d in zip((z, y, x), DIVISOR, strict=True))
        logits: torch.Tensor = self.network(functional.pad(image, (0, dx, 0, dy, 0, dz), mode="replicate"))
        return logits[:, :, :z, :y, :x]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Each weight once: ``DynUNet`` holds its layers a second time, nested."""
        return {k: v for k, v in super().state_dict(*args, **kwargs).items() if "skip_layers." not in k}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """What ``state_dict`` gave; with ``strict`` all of it."""
        if strict and state_dict.keys() != self.state_dict().keys():
            raise KeyError("the weights are not those of this network")
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def peer(config: Network, seed: int = 0) -> nn.Module:
    """In place of ``renalseg.model.resunet.build``."""
    torch.manual_seed(seed)
    return Peer(len(config.classes))


def configure(work: Path, epochs: dict[Stage, int]) -> Config:
    """The settings of ``learning.py`` with other numbers of epochs."""
    config = open_weights(work / "weights").config
    training = {stage: config.training[stage].model_copy(update={"epochs": n}) for stage, n in epochs.items()}
    return config.model_copy(update={"training": config.training | training})


def tensors(folder: Path, stage: Stage) -> dict[str, torch.Tensor]:
    """The weights of the last epoch."""
    saved = load_file(folder / stage / "last.safetensors")
    return {k.removeprefix("network."): v for k, v in saved.items() if k.startswith("network.")}


def train_peer(work: Path, out: Path, epochs: dict[Stage, int], world: World, device: str) -> dict[Stage, list[float]]:
    """Trains both stages, or goes on; the seconds of their epochs."""
    config, seconds = configure(work, epochs), dict[Stage, list[float]]()
    for stage in STAGES:
        initial = None
        if stage == "lesion" and config.training[stage].start_from == "kidney":
            initial = {k: v for k, v in tensors(out, "kidney").items() if not k.startswith(HEAD)}
        cases = list(open_cache(work / "cache").cases(stage, config).values())
        resume = (out / stage / "last.safetensors").exists()
        world.wait()
        with patch("renalseg.train.loop.build", peer):
            told = {"peer": "DynUNet"}
            run = Run(stage, config, cases, out, choose(device), told, resume, world=world, initial=initial)
            seconds[stage] = [record["seconds"] for record in train(run)["history"]]
    return seconds


def our_seconds(work: Path, stage: Stage) -> float:
    """What our network of a stage had."""
    lines = (work / "weights" / stage / "metrics.jsonl").read_text().splitlines()
    return sum(float(json.loads(line)["seconds"]) for line in lines)


def tflop(network: nn.Module, config: Config) -> float:
    """Of one window."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, config.fine.window, *config.fine.in_plane))
    return float(counter.get_total_flops()) / 1e12


def score(work: Path, networks: dict[Stage, nn.Module], runtime: Runtime) -> dict[str, float]:
    """Scores of the test phantoms through the cascade, with our coarse network."""
    weights = open_weights(work / "weights")
    placed = {stage: runtime.place(network.eval()) for stage, network in networks.items()}
    models = Models(coarse=[runtime.place(weights.network("coarse"))], kidney=[placed["kidney"]])
    return make_validator("lesion", list_cases(work / "test"), weights.config, runtime, models)(placed["lesion"])


def row(name: str, work: Path, networks: dict[Stage, nn.Module], epochs: list[int], seconds: float) -> str:
    """A line of the table."""
    config = open_weights(work / "weights").config
    cost = sum(tflop(network, config) for network in networks.values())
    millions = sum(p.numel() for network in networks.values() for p in network.parameters()) / 1e6
    scores: dict[str, Any] = score(work, networks, choose())
    shown = [f"{scores[f'{kind}_{hec.name}']:.3f}" for kind in ("dice", "sd") for hec in HECS]
    shown += [f"{millions:.1f}", f"{cost:.3f}", " / ".join(map(str, epochs)), f"{seconds / 60:.1f}"]
    return f"| {name} | " + " | ".join(shown) + " |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    a = parser.parse_args()
    note = a.work / "dynunet" / "epochs.json"
    with join("auto") as (world, device):
        if not note.exists():
            trial = train_peer(a.work, a.work / "dynunet-trial", dict.fromkeys(STAGES, TRIAL), world, device)
            if world.first:
                each = {stage: float(np.median(trial[stage][1:])) for stage in STAGES}
                write_json({stage: max(1, round(our_seconds(a.work, stage) / each[stage])) for stage in STAGES}, note)
            world.wait()
        epochs = {stage: int(n) for stage, n in json.loads(note.read_text()).items()}
        took = train_peer(a.work, a.work / "dynunet", epochs, world, device)
        if not world.first:
            return
    weights = open_weights(a.work / "weights")
    theirs: dict[Stage, nn.Module] = {}
    for stage in STAGES:
        theirs[stage] = peer(weights.config.network(stage))
        theirs[stage].load_state_dict(tensors(a.work / "dynunet", stage))
    ours: dict[Stage, nn.Module] = {stage: weights.network(stage) for stage in STAGES}
    counts = json.loads((a.work / "epochs.json").read_text())["epochs"]
    columns = [f"{kind}_{hec.name}" for kind in ("dice", "sd") for hec in HECS]
    columns += ["parameters (M)", "TFLOP a window", "epochs", "minutes"]
    seconds = sum(our_seconds(a.work, stage) for stage in STAGES)
    lines = ["| networks | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    lines.append(row("renalseg", a.work, ours, [counts[stage] for stage in STAGES], seconds))
    lines.append(row("DynUNet", a.work, theirs, list(epochs.values()), sum(map(sum, took.values()))))
    write_text("\n".join(lines) + "\n", a.work / "dynunet.md")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
