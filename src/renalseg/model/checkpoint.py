"""Weights on disk: a folder with one safetensors file a stage, the configuration, and a manifest with their hashes.

::

    NAME_OR_DIR/
      manifest.json        format, version, hash of config.yaml; per stage: file, sha256, what it was trained on
      config.yaml          the configuration, whole
      coarse.safetensors   kidney.safetensors   lesion.safetensors
      MODEL_CARD.md        what they are and what they are not (packaged weights)

No pickle is ever read.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from renalseg import __version__
from renalseg.config import STAGES, Config, Stage, load_config
from renalseg.core.errors import ConfigError, WeightsError
from renalseg.io.files import atomic_path, file_sha256, write_json, write_text
from renalseg.model.resunet import ResUnet, build

FORMAT = 1
PACKAGED = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class Weights:
    """A weights folder that was opened: its configuration, and where each trained stage lies."""

    path: Path
    config: Config
    files: dict[Stage, Path]
    hashes: dict[Stage, str]
    manifest: dict[str, Any]

    @property
    def sha256(self) -> str:
        """One hash for all stages."""
        text = json.dumps({stage: self.hashes[stage] for stage in sorted(self.hashes)})
        return hashlib.sha256(text.encode()).hexdigest()

    def is_whole(self, stage: Stage) -> bool:
        """Whether the file of ``stage`` is there and the one that the manifest means."""
        return stage in self.files and file_sha256(self.files[stage]) == self.hashes[stage]

    @property
    def card(self) -> str | None:
        """The text of the model card, if there is one."""
        path = self.path / "MODEL_CARD.md"
        return path.read_text() if path.exists() else None

    def network(self, stage: Stage) -> ResUnet:
        """The network of ``stage`` with its weights, on the CPU, in evaluation mode.

        Raises:
            WeightsError: the stage is not there, its file's hash differs from the manifest's, or its shapes do not fit.
        """
        if stage not in self.files:
            raise WeightsError(
                f"{self.path}: there are no weights of the stage {stage}; train it, or name other weights"
            )
        path = self.files[stage]
        if file_sha256(path) != self.hashes[stage]:
            raise WeightsError(
                f"{path}: the hash is not the one in manifest.json; where a training was cut off, go on with it "
                "(--resume), which mends this, otherwise fetch or train the weights again"
            )
        network = build(self.config.network(stage))
        try:
            network.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise WeightsError(f"{path}: the weights do not fit config.yaml; give the folder they came with") from error
        return network.eval()


def packaged_names() -> list[str]:
    """Names of the weights inside the package."""
    return sorted(p.parent.name for p in PACKAGED.glob("*/manifest.json"))


def open_weights(name_or_dir: str | Path) -> Weights:
    """Opens packaged weights by name or a folder by path; nothing is downloaded.

    Raises:
        WeightsError: there is no such folder, or its manifest or configuration cannot be used.
    """
    packaged = PACKAGED / str(name_or_dir)
    path = packaged if str(name_or_dir) in packaged_names() else Path(name_or_dir)
    manifest_path = path / "manifest.json"
    if not manifest_path.is_file():
        names = ", ".join(packaged_names()) or "none"
        raise WeightsError(
            f"{name_or_dir}: no weights there; give a folder with manifest.json or a packaged name ({names})"
        )
    try:
        manifest = json.loads(manifest_path.read_text())
        if manifest["format"] != FORMAT:
            raise WeightsError(
                f"{path}: weights of format {manifest['format']}, this version reads {FORMAT}; update one"
            )
        entries = {stage: manifest["stages"][stage] for stage in STAGES if stage in manifest["stages"]}
        files = {stage: path / Path(entry["file"]).name for stage, entry in entries.items()}
        hashes = {stage: str(entry["sha256"]) for stage, entry in entries.items()}
        expected = manifest["config_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{manifest_path}: the manifest is damaged ({error}); fetch the weights again") from error
    config = load_config(path / "config.yaml")
    if file_sha256(path / "config.yaml") != expected:  # of the bytes: a later version may add settings with defaults
        raise WeightsError(f"{path}: config.yaml is not the one these weights were saved with; fetch the weights again")
    for file in files.values():
        if not file.is_file():
            raise WeightsError(f"{file}: this file of the manifest is missing; fetch the weights again")
    return Weights(path, config, files, hashes, manifest)


def save_stage(path: Path, config: Config, stage: Stage, network: torch.nn.Module, trained_on: dict[str, Any]) -> None:
    """Writes or replaces one stage of a weights folder, with the configuration and the manifest.

    Several processes may save their stages into one folder at once. A ``config.yaml`` that says the same is kept as it
    is, so that the hashes noted with it stay true in a version that knows more settings.

    Raises:
        WeightsError: the folder holds stages of another configuration, or its manifest is damaged.
    """
    _manifest(path, config)  # refused before anything is written
    file = path / f"{stage}.safetensors"
    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    with atomic_path(file) as temporary:
        # One key: safetensors writes several in any order, and the hashes of equal weights would differ.
        save_file(tensors, temporary, metadata={"renalseg": __version__})
        temporary.chmod(0o644)  # safetensors writes files that only their owner can read
    with _locked(path):
        manifest = _manifest(path, config)
        manifest["stages"][stage] = {"file": file.name, "sha256": file_sha256(file), "trained_on": trained_on}
        keep_config(path, config)
        known = {"config_sha256": file_sha256(path / "config.yaml"), "preset": config.name}
        manifest |= {"format": FORMAT, "renalseg": __version__, **known}
        write_json(manifest, path / "manifest.json")


def keep_config(path: Path, config: Config) -> None:
    """Writes ``config.yaml`` into a folder, unless the one there says the same."""
    file = path / "config.yaml"
    with suppress(ConfigError):  # none yet, or none that can be used
        if load_config(file) == config:
            return
    write_text(config.to_yaml(), file)


def _manifest(path: Path, config: Config) -> dict[str, Any]:
    """The manifest of a folder that a stage is to be saved into; a new one where there is none.

    Raises:
        WeightsError: the folder holds stages of another configuration, or its manifest is damaged.
    """
    if not (path / "manifest.json").exists():
        return {"stages": {}}
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
        _ = manifest["stages"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}/manifest.json: the manifest is damaged; give another --out") from error
    if load_config(path / "config.yaml") != config:
        raise WeightsError(f"{path}: holds weights of another configuration; give another --out")
    return manifest


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds off other processes that update this folder's manifest; a lock ends with its process, even a killed one.

    The lock's file is deleted at the end, so a process that waited for it starts again with a new one. File systems
    without locks are used without.
    """
    path = folder / ".manifest.lock"
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            with suppress(OSError):
                _lock(handle)
            try:
                current = os.fstat(handle).st_ino == path.stat().st_ino
            except OSError:
                current = False
            if not current:
                continue
            try:
                yield
            finally:
                with suppress(OSError):  # on Windows an open file stays
                    path.unlink()
            return
        finally:
            os.close(handle)


def _lock(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
