"""The networks of a cascade, timed from outside it."""

import time
from dataclasses import dataclass, field

import torch

from renalseg.benchmark.drawn import KIDNEY_FROM
from renalseg.config import STAGES, Stage
from renalseg.model.runtime import Runtime


@dataclass
class Meter:
    """Seconds and input shapes of each network call since the last ``reset``, by stage."""

    runtime: Runtime
    seconds: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def __deepcopy__(self, _memo: object) -> "Meter":
        """The same one: a copy of a network on another device is counted with it."""
        return self

    def reset(self) -> None:
        """Begins anew."""
        self.seconds, self.shapes = dict.fromkeys(STAGES, 0.0), {stage: [] for stage in STAGES}


class Metered(torch.nn.Module):
    """A network that is timed; where it is ``guided``, a threshold of its input gives the answer."""

    def __init__(self, network: torch.nn.Module, stage: Stage, meter: Meter, guided: bool) -> None:
        super().__init__()
        self.network, self.stage, self.meter, self.guided = network, stage, meter, guided

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [n, classes, z, y, x] of ``image`` [n, 1, z, y, x]."""
        self.meter.runtime.synchronise()
        started = time.perf_counter()
        logits: torch.Tensor = self.network(image)
        self.meter.runtime.synchronise()
        self.meter.seconds[self.stage] += time.perf_counter() - started
        self.meter.shapes[self.stage].append(tuple(image.shape))
        if not self.guided:
            return logits
        kidney = 8.0 * (image >= KIDNEY_FROM).float() - 4.0
        if self.stage == "lesion":  # everything is kidney
            return torch.cat((kidney, kidney.abs() - 10, kidney.abs() - 10), 1)
        return torch.cat((-kidney, kidney), 1)
