"""Everything that a run needs to go on where it stopped, in one safetensors file written atomically.

Tensors: the network, AdamW's moments, averaged weights where there are any, and torch's random state. Numbers: in the
file's metadata, as JSON. The order of cases and the augmentation need no state: they follow from the seed, the epoch
and the cases' running losses, which are among the numbers. Nothing here depends on the number of processes.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from renalseg.config import sha256_today
from renalseg.core.errors import WeightsError
from renalseg.io.files import atomic_path


@dataclass
class State:
    """What changes in a run.

    Attributes:
        network: being trained.
        optimiser: AdamW over its parameters.
        scaler: of the loss, for fp16; does nothing otherwise.
        average: exponential moving average of the network's parameters, by name; None where it is off.
        progress: JSON-ready; at least ``epoch`` and ``config_sha256``.
    """

    network: torch.nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, torch.Tensor] | None = None
    progress: dict[str, Any] = field(default_factory=dict)

    def update_average(self, decay: float) -> None:
        """Moves the averaged weights by ``1 - decay`` of the way to the network's."""
        if self.average is None:
            return
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value.float(), 1.0 - decay)


def save_state(path: Path, state: State) -> None:
    """Writes the state of a run."""
    optimiser = state.optimiser.state_dict()
    tensors = {f"network.{k}": v for k, v in state.network.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in (state.average or {}).items()}
    for index, moments in optimiser["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in moments.items()}
    tensors["random.torch"] = torch.get_rng_state()
    scaler = state.scaler.state_dict() if state.scaler.is_enabled() else None
    meta = {"progress": state.progress, "groups": optimiser["param_groups"], "scaler": scaler}
    with atomic_path(path) as temporary:
        plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        save_file(plain, temporary, {"state": json.dumps(meta)})


def load_state(path: Path, state: State, config_sha256: str) -> None:
    """Restores what ``save_state`` wrote into ``state``.

    Raises:
        WeightsError: the file is missing or damaged, or belongs to another configuration.
    """
    meta = _read_meta(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if sha256_today(meta["progress"]["config_sha256"], path.parent.parent / "config.yaml") != config_sha256:
        raise WeightsError(f"{path}: this run has another configuration; resume with its own config.yaml")
    state.progress = meta["progress"]
    state.network.load_state_dict(_under("network.", tensors))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _under("optimiser.", tensors).items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    state.optimiser.load_state_dict({"state": moments, "param_groups": meta["groups"]})
    if state.average is not None:
        for name, tensor in _under("average.", tensors).items():
            state.average[name].copy_(tensor)
    torch.set_rng_state(tensors["random.torch"])
    if meta["scaler"]:
        state.scaler.load_state_dict(meta["scaler"])


def read_progress(path: Path) -> dict[str, Any]:
    """The numbers of a run, without its tensors.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    progress: dict[str, Any] = _read_meta(path)["progress"]
    return progress


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            meta: dict[str, Any] = json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: there is no run to resume; start it without --resume") from error
    return meta


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
