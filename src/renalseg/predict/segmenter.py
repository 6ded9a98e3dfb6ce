"""``Segmenter``: weights opened once, any number of CTs segmented."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from renalseg.config import STAGES, Config, Stage
from renalseg.core.errors import ConfigError, WeightsError
from renalseg.core.volume import Segmentation, Volume
from renalseg.io.checks import check_ct
from renalseg.model.checkpoint import Weights, open_weights
from renalseg.model.runtime import Runtime, choose_for_prediction, keep_freed_memory, use_real_cores
from renalseg.predict.pipeline import Models, segment_volume
from renalseg.predict.room import lacks_memory

DEFAULT_WEIGHTS = "default"


class Segmenter:
    """Finds kidneys, tumors and cysts in CT volumes.

    Args:
        weights: a packaged name, a folder, or several of them, whose probabilities are averaged stage by stage.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32, bf16 or fp16; auto is fp32.
        tta: average with the mirror image along z (paper 2.3); off is twice as fast.

    Raises:
        WeightsError: weights are missing, damaged, incomplete, or do not go together.
        ConfigError: the device or the precision is not to be had, or the device has no room for the networks.

    Example:
        >>> from renalseg import Segmenter, read_volume  # doctest: +SKIP
        >>> result = Segmenter().segment(read_volume("ct.nii.gz"))  # doctest: +SKIP
        >>> result.record["volumes_ml"]  # doctest: +SKIP
    """

    def __init__(
        self,
        weights: str | Path | Sequence[str | Path] = DEFAULT_WEIGHTS,
        device: str = "auto",
        precision: str = "auto",
        tta: bool = True,
    ) -> None:
        self.runtime: Runtime = choose_for_prediction(device, precision)
        use_real_cores()
        if self.runtime.is_host:
            keep_freed_memory()
        self.tta = tta
        names = [weights] if isinstance(weights, str | Path) else list(weights)
        if not names:
            raise WeightsError("no weights were named; name packaged weights or a folder")
        self.weights: list[Weights] = [open_weights(name) for name in names]
        self.config: Config = self.weights[0].config
        for other in self.weights[1:]:
            if _grid_settings(other.config) != _grid_settings(self.config):
                raise WeightsError(
                    f"{other.path}: these weights work on another grid than {self.weights[0].path}; "
                    "only weights of one configuration average"
                )
        self.models = Models(**{stage: self._load(stage) for stage in STAGES})

    def segment(self, volume: Volume) -> Segmentation:
        """Labels uint8 on the grid of ``volume`` (CT in HU), and the record of how they came about."""
        if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
            volume = check_ct(volume, Path(volume.name))
        if not volume.array.dtype.isnative:
            volume = volume.with_array(volume.array.astype(volume.array.dtype.newbyteorder("=")))
        result = segment_volume(volume, self.models, self.config, self.runtime, self.tta)
        result.record["weights"] = [
            {"path": w.path.resolve().name, "sha256": w.sha256, "config_sha256": w.config.sha256()}
            for w in self.weights
        ]
        result.record["weights_sha256"] = self.weights_sha256
        return result

    @property
    def weights_sha256(self) -> str:
        """One hash for all weights in use: the folder's own for one, a hash of hashes for several."""
        if len(self.weights) == 1:
            return self.weights[0].sha256
        return hashlib.sha256(json.dumps([w.sha256 for w in self.weights]).encode()).hexdigest()

    def _load(self, stage: Stage) -> list[torch.nn.Module]:
        try:
            return [self.runtime.predictor(w.network(stage)) for w in self.weights]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise ConfigError(
                f"the device {str(self.runtime.device)!r} has no memory left for the networks; "
                "close other programs that use it, or choose the device cpu"
            ) from error


def _grid_settings(config: Config) -> object:
    """What has to agree for probabilities to be averaged: everything but networks and training."""
    return config.model_dump(
        exclude={
            "name": True,
            "preparation": True,
            "training": True,
            "coarse": {"network"},
            "fine": {"kidney", "lesion"},
        }
    )


def segment(volume: Volume, weights: str | Path = DEFAULT_WEIGHTS, device: str = "auto") -> Segmentation:
    """Segments one CT; for several, make a ``Segmenter`` once. Errors as there."""
    return Segmenter(weights, device).segment(volume)
