"""The command that reproduces the paper's protocol: crossval."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from renalseg.cli.common import Deterministic, Device, Precision, Preset, app, configuration


@app.command()
def crossval(
    data: Annotated[Path, typer.Option(help="dataset in KiTS23 layout, or a cache from `prepare`")],
    out: Annotated[Path, typer.Option(help="folder for weights, predictions, scores and crossval.md")],
    folds: Annotated[str, typer.Option(help="which of the five, separated by commas")] = "0,1,2,3,4",
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(help="configuration file instead of a preset")] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare, load and evaluate")] = 0,
    validation_cases: Annotated[int, typer.Option(min=0, help="cases of a fold shown at a validation")] = 4,
    deterministic: Deterministic = False,
) -> None:
    """Train every fold, segment what it left out, score it all; interrupted, it goes on where it stopped.

    On several GPUs: torchrun --nproc-per-node N -m renalseg crossval ...
    """
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from renalseg.crossval import Plan, Reports, cross_validate

    settings = configuration(preset, config)
    plan = Plan(data, out, settings, _numbers(folds), device, precision, workers, validation_cases, deterministic)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one alone speaks
    with Progress(*columns, disable=not first) as bar:
        tasks: dict[str, Any] = {}

        def on_progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        def say(sentence: str) -> None:
            bar.console.print(Text(sentence), soft_wrap=True)

        result = cross_validate(plan, Reports(say, on_progress))
    errors = Console(stderr=True, quiet=not first)
    for case, reason in result.failed.items():
        errors.print(Text.assemble((f"failed {case}", "red"), f": {reason}"), soft_wrap=True)
    if result.folds and first:
        tables, *_ = (out / "crossval.md").read_text().partition("\n### ")  # a terminal shows no pictures
        Console().print(Markdown(tables))
        print(f"with pictures of the worst cases: {out / 'crossval.md'}")
    if result.failed:
        raise typer.Exit(1)


def _numbers(text: str) -> tuple[int, ...]:
    from renalseg.core.errors import ConfigError

    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise ConfigError(f"--folds {text}: give numbers separated by commas, as in 0,1,2,3,4") from error
