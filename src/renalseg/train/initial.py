"""What a network is before its first step: random, that of other weights, or the body of the kidney network."""

from pathlib import Path
from typing import Any

import torch

from renalseg.config import Config, Stage
from renalseg.core.errors import ConfigError, WeightsError
from renalseg.model.checkpoint import open_weights
from renalseg.model.resunet import build

Tensors = dict[str, torch.Tensor]


def initial_weights(
    stage: Stage, config: Config, named: str | Path | None, out: Path, cascade: Path | None
) -> tuple[Tensors | None, dict[str, Any]]:
    """The weights that a run begins with, None for random ones, and what the manifest says about them.

    Args:
        stage: which network.
        config: with ``training[stage].start_from``, which counts where nothing is named.
        named: packaged weights by name, or a folder, whose network of this stage is trained further.
        out: the run's weights folder; its kidney network, else that of ``cascade``, is the body to start from.
        cascade: a weights folder, or None.

    Raises:
        WeightsError: the named weights are not there, or hold no network of this stage.
        ConfigError: the named weights are those of ``out``, or of another network or intensity; or there is no kidney
            network to start from, or an unlike one.
    """
    if named is not None:
        other = open_weights(named)
        if other.path.resolve() == out.resolve():
            raise ConfigError(f"{out}: a run cannot begin with weights that it replaces; give another --out")
        if stage not in other.files:
            raise WeightsError(f"{other.path}: holds no network of the stage {stage} to begin with; name other weights")
        for what, theirs, ours in (
            (f"{stage} network", other.config.network(stage), config.network(stage)),
            ("intensity", other.config.intensity, config.intensity),
        ):
            if theirs != ours:
                raise ConfigError(
                    f"{other.path}: its {what} is not that of the configuration; train with its config.yaml, or name "
                    "other weights"
                )
        return other.network(stage).state_dict(), {"start_from": f"{stage} {other.hashes[stage][:16]}"}
    if stage != "lesion" or config.training[stage].start_from == "random":
        return None, {}
    for folder in (out if (out / "manifest.json").exists() else None, cascade):
        weights = None if folder is None else open_weights(folder)
        if weights is not None and "kidney" in weights.files:
            body = _without_head(weights.network("kidney"))
            wanted = _without_head(build(config.network("lesion")))
            if {k: v.shape for k, v in body.items()} != {k: v.shape for k, v in wanted.items()}:
                raise ConfigError(
                    f"{weights.path}: its kidney network has other layers than the lesion network to train; set "
                    "start_from: random"
                )
            return body, {"start_from": f"kidney {weights.hashes['kidney'][:16]}"}
    raise ConfigError(
        f"{out}: the lesion stage starts from the kidney network, which is not there; train the stage kidney "
        "to the same --out first, or set start_from: random"
    )


def _without_head(network: torch.nn.Module) -> Tensors:
    """The weights of a network, all but those of its head."""
    return {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
