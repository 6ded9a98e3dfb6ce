"""Everything that a run needs to go on where it stopped, in one safetensors file written atomically.

Tensors: the network, AdamW's moments and torch's random state. Numbers: in the file's metadata, as JSON. The order of
cases and the augmentation need no state: they follow from seed and epoch.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from renalseg.core.errors import WeightsError
from renalseg.io.files import atomic_path


def save_state(
    path: Path, network: torch.nn.Module, optimiser: torch.optim.Optimizer, progress: dict[str, Any], scaler: Any = None
) -> None:
    """Writes the state of a run; ``progress`` is JSON-ready and holds at least ``epoch`` and ``config_sha256``."""
    state = optimiser.state_dict()
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    for index, moments in state["state"].items():
        tensors |= {f"optimiser.{index}.{k}": v for k, v in moments.items()}
    tensors["random.torch"] = torch.get_rng_state()
    meta = {"progress": progress, "groups": state["param_groups"], "scaler": scaler.state_dict() if scaler else None}
    with atomic_path(path) as temporary:
        plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        save_file(plain, temporary, {"state": json.dumps(meta)})


def load_state(
    path: Path, network: torch.nn.Module, optimiser: torch.optim.Optimizer, config_sha256: str, scaler: Any = None
) -> dict[str, Any]:
    """Restores what ``save_state`` wrote and returns ``progress``.

    Raises:
        WeightsError: the file is missing or damaged, or belongs to another configuration.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["state"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: there is no run to resume; start it without --resume") from error
    progress: dict[str, Any] = meta["progress"]
    if progress["config_sha256"] != config_sha256:
        raise WeightsError(f"{path}: this run has another configuration; resume with its own config.yaml")
    network.load_state_dict(_under("network.", tensors))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _under("optimiser.", tensors).items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": meta["groups"]})
    torch.set_rng_state(tensors["random.torch"])
    if scaler and meta["scaler"]:
        scaler.load_state_dict(meta["scaler"])
    return progress


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
