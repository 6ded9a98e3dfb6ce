"""The records of a training as scalars for TensorBoard, where the package ``tensorboard`` is installed."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

TRAINING = ("loss", "lr", "seconds", "wait_seconds", "first_wait_seconds", "sample_seconds", "skipped_steps")
"""Records hold these from training; all else comes from validation."""


class TensorboardLog:
    """Keeps ``<stage>/tensorboard/`` in a weights folder up to date while its stage trains.

    Its first ``update`` writes the whole history into a new event file, in place of those of earlier sessions; later
    ones append. So every epoch is there once, however often a run was interrupted.
    """

    def __init__(self, folder: Path) -> None:
        """Writes nothing yet."""
        self.folder = folder
        self._writer: Any = None
        self._written = 0
        self._available = True

    def update(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Writes the records that are not written yet; ``history`` holds those of all epochs."""
        if self._writer is None and self._available:
            self._open()
        if self._writer is None:
            return
        for record in history[self._written :]:
            for name, value in record.items():
                if name != "epoch":
                    group = "training" if name in TRAINING else "validation"
                    self._writer.add_scalar(f"{group}/{name}", value, record["epoch"])
        self._written = len(history)
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file; nothing is lost without it."""
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._available = False
            log.info("the package tensorboard is not installed; no scalars are written for it")
            return
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(self.folder)
