"""``Config``: a whole system, checked as one, hashed, YAML in and out."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from renalseg.config.settings import (
    STAGES,
    Clean,
    Coarse,
    Fine,
    Frozen,
    Intensity,
    Network,
    Preparation,
    Stage,
    Training,
)
from renalseg.core.errors import ConfigError


class Config(Frozen):
    """A whole system: three networks, the cascade and its training."""

    name: str = Field(description="name of the preset it came from")
    intensity: Intensity = Intensity()
    coarse: Coarse
    fine: Fine
    clean: Clean
    preparation: Preparation = Preparation()
    training: dict[Stage, Training]

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        for stage in STAGES:
            if stage not in self.training:
                raise ValueError(f"training has no entry for the stage {stage}")
            network, training = self.network(stage), self.training[stage]
            if len(training.class_weights) != len(network.classes):
                raise ValueError(f"{stage}: {len(network.classes)} classes need as many class_weights")
            expected = self.coarse.shape if stage == "coarse" else (training.patch[0], *self.fine.in_plane)
            if training.patch != expected:
                raise ValueError(f"{stage}: the patch {training.patch} is not the stage's {expected}")
            if any(n % d for n, d in zip(training.patch, network.divisor, strict=True)):
                raise ValueError(f"{stage}: the patch {training.patch} is not divisible by {network.divisor}")
            if stage != "coarse" and network.divisor[0] != 1:
                raise ValueError(f"{stage}: a 2.5D network does not down-sample along z")
        return self

    def network(self, stage: Stage) -> Network:
        """The network of a stage."""
        return {"coarse": self.coarse.network, "kidney": self.fine.kidney, "lesion": self.fine.lesion}[stage]

    def sha256(self) -> str:
        """Content hash: equal for equal settings, whatever file they came from."""
        return _sha256(self.model_dump(mode="json"))

    def inference_sha256(self) -> str:
        """Content hash of all that decides a prediction: everything but preparation and training."""
        return _sha256(self.model_dump(mode="json", exclude={"training", "preparation", "name"}))

    def to_yaml(self) -> str:
        """The settings as YAML text that ``load_config`` reads back."""
        import yaml  # here, since the command line's help knows the presets and needs no YAML

        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_config(path: Path) -> Config:
    """Reads a configuration file.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not validate.
    """
    import yaml

    try:
        return Config.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: the configuration cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not YAML; write one with `renalseg describe --yaml`") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}; correct it ({error.error_count()} in all)") from error


def sha256_today(noted: str, file: Path) -> str:
    """The hash that settings noted as ``noted`` have in this version, to be compared with ``Config.sha256``.

    A version that knows more settings gives equal ones another hash. ``file`` is the ``config.yaml`` that was kept
    beside the note: where it holds the very settings that ``noted`` is the hash of, its hash with today's defaults is
    returned, otherwise ``noted``.
    """
    import yaml

    try:
        if _sha256(yaml.safe_load(file.read_text())) == noted:
            return load_config(file).sha256()
    except (OSError, yaml.YAMLError, UnicodeDecodeError, TypeError, ConfigError):
        pass  # no file, not YAML, or settings that are known no more: nothing speaks for equality
    return noted


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
