"""What a training run shows of itself while it goes on: the page and the TensorBoard log of its stage."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from renalseg.config import Config, Stage
from renalseg.core.volume import Volume
from renalseg.report.tensorboard_log import TensorboardLog
from renalseg.report.training_page import About, TrainingPage


class RunReport:
    """Keeps ``OUT/STAGE/report.html`` and ``OUT/STAGE/tensorboard`` up to date; a context that closes the log."""

    def __init__(self, out: Path, stage: Stage, config: Config, fold: int | None) -> None:
        self.page = TrainingPage(out, About(stage, config, fold))
        self.scalars = TensorboardLog(out / stage / "tensorboard")

    def update(self, history: list[dict[str, Any]]) -> None:
        """Takes the records of all epochs so far."""
        self.page.update(history)
        self.scalars.update(history)

    def add_example(self, ct: Volume, predicted: Volume, truth: Volume) -> None:
        """Takes a validated case."""
        self.page.add_example(ct, predicted, truth)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.scalars.close()
