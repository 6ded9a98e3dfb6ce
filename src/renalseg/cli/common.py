"""What the commands share: the application, options of one meaning, configuration, tables and progress bars."""

from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from renalseg.config import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from renalseg.config import Config

app = typer.Typer(
    name="renalseg",
    help="Kidneys, renal tumors and cysts in abdominal CT. Research use only, not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Keep(StrEnum):
    """Which weights a training leaves, as arguments."""

    best = "best"
    last = "last"


class StageName(StrEnum):
    """The three stages, as arguments."""

    coarse = "coarse"
    kidney = "kidney"
    lesion = "lesion"


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="equal results on a GPU, slower")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16")]
Preset = Annotated[str | None, typer.Option(help=", ".join(PRESETS))]


def configuration(preset: str | None, file: Path | None) -> "Config":
    """The settings of a preset or of a file; the preset ``paper`` where neither is named."""
    from renalseg.config import load_config
    from renalseg.config import preset as named
    from renalseg.core.errors import ConfigError

    if preset is not None and file is not None:
        raise ConfigError("give --preset or --config, not both")
    return load_config(file) if file is not None else named(preset or "paper")


def table(*columns: str) -> Any:
    """An empty rich table; columns after the first are aligned to the right."""
    from rich.table import Table

    made = Table()
    for index, column in enumerate(columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    return made


@contextmanager
def bar(title: str) -> "Iterator[Any]":
    """A progress bar; yields a function of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
