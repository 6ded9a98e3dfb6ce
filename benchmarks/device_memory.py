"""How much memory a device needs for one window of each preset's lesion network, counted without a device.

    python benchmarks/device_memory.py

The network runs on PyTorch's "meta" device, which computes nothing: each tensor is counted from its making to its last
use, in fp32, one window at a time as on a device. Weights of all three stages, and what the fine grid keeps on the
device (``predict.room.KEPT_BYTES``), come on top; what cuDNN works in is not known without a GPU.
"""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from renalseg.config import PRESETS, STAGES, Config
from renalseg.model.resunet import build
from renalseg.predict.room import KEPT_BYTES
from renalseg.report.describe import cost


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self._count(storage)
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


def window_bytes(config: Config) -> int:
    """Peak of the tensors that one window of the lesion network makes, and its probabilities."""
    network = build(config.network("lesion")).eval().to("meta")
    image = torch.empty(1, 1, config.fine.window, *config.fine.in_plane, device="meta")
    with torch.inference_mode(), LiveBytes() as counted:
        network(image).softmax(1)
    return counted.peak


def weight_bytes(config: Config) -> int:
    """All three networks."""
    return sum(4 * cost(config, stage).parameters for stage in STAGES)


def main() -> None:
    print("| preset | window, MB | weights, MB | with the region at most, MB |\n|---|---:|---:|---:|")
    for name, config in PRESETS.items():
        window, weights = window_bytes(config), weight_bytes(config)
        figures = (window, weights, window + weights + KEPT_BYTES)
        print(f"| `{name}` | " + " | ".join(f"{figure / 1e6:.0f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
