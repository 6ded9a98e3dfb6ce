"""The command line: names and flags for the functions of the package. Heavy imports stay inside the bodies.

Exit codes: 0 done, 1 some cases failed and the others are written, 2 unusable arguments or input, 130 interrupted.
"""

import os
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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


class StageName(StrEnum):
    """The three stages, as arguments."""

    coarse = "coarse"
    kidney = "kidney"
    lesion = "lesion"


class Missing(StrEnum):
    """What ``evaluate`` does about a case without a usable prediction."""

    error = "error"
    zero = "zero"


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16")]
Preset = Annotated[str | None, typer.Option(help="paper, light or tiny")]


def main() -> None:
    """Runs the command line; errors that a user can act on become one sentence and an exit code."""
    from renalseg.core.errors import RenalsegError

    try:
        app()
    except RenalsegError as error:
        print(f"renalseg: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:  # typer turns an interrupt into exit code 130
        code = 130 if isinstance(stop, KeyboardInterrupt) else stop.code
        if code == 130:
            print("renalseg: interrupted", file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        print(f"renalseg: {error.filename or 'a file'}: {error.strerror or error}; check the path.", file=sys.stderr)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from renalseg import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder for the results")] = Path("renalseg-demo"), device: Device = "auto"
) -> None:
    """Render a CT phantom, segment it, evaluate it, draw it."""
    from rich.console import Console
    from rich.text import Text

    from renalseg.core.labels import HECS
    from renalseg.demo import run_demo

    console = Console()
    with console.status("Starting") as status:
        result = run_demo(out, lambda text: status.update(f"{text} ..."), device)
    _print_record(console, result.record)
    scores = result.scores.mean
    table = _table("evaluation class", "Dice", "surface Dice")
    for hec in HECS:
        table.add_row(hec.title, f"{scores.dice[hec.name]:.4f}", f"{scores.surface_dice[hec.name]:.4f}")
    console.print(table)
    console.print(Text(f"labels   {result.labels}\npicture  {result.picture}"), soft_wrap=True)


@app.command()
def segment(
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT...", help="files, DICOM folders or zips, datasets")],
    out: Annotated[Path, typer.Option(help="folder for CASE.nii.gz, CASE.json and CASE.png")],
    weights: Annotated[
        list[str] | None, typer.Option(help="packaged name or folder; several are averaged  [default: default]")
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    tta: Annotated[bool, typer.Option(help="average with the mirror image along z")] = True,
) -> None:
    """Segment CTs: NIfTI, NRRD, MHA, DICOM folders or zips, or a dataset in KiTS23 layout."""
    from rich.console import Console
    from rich.text import Text

    from renalseg.core.errors import InputError

    if len(inputs) == 1 and not inputs[0].exists():  # said at once, before torch is loaded
        raise InputError(f"{inputs[0]} does not exist; check the path.")

    from renalseg.batch import list_inputs, segment_all
    from renalseg.predict.segmenter import Segmenter

    cases = list_inputs(inputs)
    segmenter = Segmenter(weights or "default", device, precision, tta)
    console, failed = Console(stderr=True), list[str]()
    with console.status("Starting") as status:
        for outcome in segment_all(cases, out, segmenter, lambda name: status.update(Text(f"{name} ..."))):
            if outcome.record is not None:
                _print_record(console, outcome.record)
                continue
            failed.append(outcome.name)
            start = ("renalseg", "") if len(cases) == 1 else (f"failed {outcome.name}", "red")
            console.print(Text.assemble(start, f": {outcome.error}"), soft_wrap=True)
    if len(cases) > 1:
        done = f"{len(cases) - len(failed)} of {len(cases)} cases segmented into {out}"
        console.print(Text(done + (f"; failed: {', '.join(failed)}" if failed else "")), soft_wrap=True)
    if failed:
        raise typer.Exit(2 if len(failed) == len(cases) else 1)


@app.command()
def train(
    stage: Annotated[StageName, typer.Argument(help="which network")],
    data: Annotated[Path, typer.Option(help="dataset in KiTS23 layout")],
    out: Annotated[Path, typer.Option(help="weights folder; the three stages share it")],
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(help="configuration file instead of a preset")] = None,
    fold: Annotated[int | None, typer.Option(help="hold out this fold of five for validation")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last epoch")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare and load data")] = 0,
    validation_cases: Annotated[int, typer.Option(min=1, help="cases of the fold scored at a validation")] = 4,
    cascade: Annotated[Path | None, typer.Option(help="weights of the other stages for validation")] = None,
) -> None:
    """Train one stage on a dataset in KiTS23 layout."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from renalseg.train.run import Progress as Hooks
    from renalseg.train.run import Request, run_training

    request = Request(
        stage=stage.value,
        data=data,
        out=out,
        config=_configuration(preset, config),
        fold=fold,
        resume=resume,
        device=device,
        precision=precision,
        workers=workers,
        validation_cases=validation_cases,
        cascade=cascade,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        preparing = bar.add_task("preparing", total=None)
        training = bar.add_task(f"training {stage.value}", total=None, start=False)

        def on_step(step: int, steps: int, loss: float) -> None:
            bar.start_task(training)
            bar.update(training, completed=step, total=steps, description=f"training {stage.value}  loss {loss:.3f}")

        result = run_training(
            request, Hooks(lambda _, done, total: bar.update(preparing, completed=done, total=total), on_step)
        )
    print(f"{stage.value}: {result['epoch']} epochs done; weights in {out}")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="folder with CASE.nii.gz")],
    truth: Annotated[Path, typer.Option(help="dataset in KiTS23 layout")],
    out: Annotated[Path, typer.Option(help="folder for metrics.csv, metrics.json and metrics.md")],
    fold: Annotated[int | None, typer.Option(help="only the cases of this fold of five")] = None,
    missing: Annotated[Missing, typer.Option(help="a case without a usable prediction")] = Missing.error,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
) -> None:
    """Score label maps by the official KiTS23 rules."""
    from rich.console import Console
    from rich.markdown import Markdown

    from renalseg.evaluate.cohort import evaluate as score
    from renalseg.io.kits import fold_split, list_cases

    cases = None
    if fold is not None:
        cases = fold_split([c.case_id for c in list_cases(truth) if c.segmentation], fold)[1]
    console = Console()
    with _bar("evaluating") as advance:
        score(predictions, truth, out, missing.value, cases, workers, lambda _, done, total: advance(done, total))
    console.print(Markdown((out / "metrics.md").read_text()))


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="folder for the dataset, KiTS23 layout")],
    cases: Annotated[int, typer.Option(min=1, help="how many")],
    seed: Annotated[int, typer.Option(min=0, help="of the whole cohort")],
    labels: Annotated[Path | None, typer.Option(help="label maps to set into the bodies, KiTS23 layout")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    negatives: Annotated[float, typer.Option(min=0, max=1, help="share of scans without kidneys")] = 0.0,
    max_slices: Annotated[int | None, typer.Option(min=16, help="upper bound of the slices of a scan")] = None,
    in_plane: Annotated[int, typer.Option(min=64, help="matrix size; the field of view stays")] = 512,
) -> None:
    """Render CT phantoms with their true labels."""
    from renalseg.core.errors import ConfigError
    from renalseg.phantom.cohort import write_cohort

    if labels is not None and (negatives or max_slices is not None or in_plane != 512):
        raise ConfigError("with --labels the grid is that of the label maps; leave out the options that change it")
    done = 0
    with _bar("rendering") as advance:

        def on_case(index: int, record: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            advance(done, cases)

        write_cohort(
            out, cases, seed, labels, workers, on_case, in_plane=in_plane, max_slices=max_slices, negatives=negatives
        )
    print(f"{cases} cases in {out}")


@app.command()
def describe(
    preset: Preset = None,
    weights: Annotated[str | None, typer.Option(help="packaged name or folder")] = None,
    yaml: Annotated[bool, typer.Option("--yaml", help="print the configuration as YAML, to edit")] = False,
) -> None:
    """Print networks, cost, training protocol and the source of every number."""
    from rich.console import Console

    from renalseg.core.errors import ConfigError
    from renalseg.model.checkpoint import open_weights
    from renalseg.report.describe import describe as tables

    if weights is not None and preset is not None:
        raise ConfigError("give --preset or --weights, not both: weights hold their own configuration")
    opened = open_weights(weights or "default") if preset is None else None
    settings = opened.config if opened else _configuration(preset, None)
    if yaml:
        print(settings.to_yaml(), end="")
        return
    Console().print(tables(settings, opened))


def _configuration(preset: str | None, file: Path | None) -> "Config":
    from renalseg.config import load_config
    from renalseg.config import preset as named
    from renalseg.core.errors import ConfigError

    if preset is not None and file is not None:
        raise ConfigError("give --preset or --config, not both")
    return load_config(file) if file is not None else named(preset or "paper")


def _print_record(console: Any, record: dict[str, Any]) -> None:
    """One case: volumes, time, memory and warnings; as ``Text``, since names may hold brackets, rich's markup."""
    from rich.text import Text

    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in record["volumes_ml"].items())
    found = volumes if record["kidney_found"] else "no kidney found"
    device = record["peak_memory_mb"]["device"]
    memory = f"{record['peak_memory_mb']['host']:.0f} MB" + (f", device {device:.0f} MB" if device else "")
    line = f": {found}; {record['timings_s']['total']:.1f} s, {memory}"
    console.print(Text.assemble((record["case"], "bold"), line), soft_wrap=True)
    for warning in record["warnings"]:
        console.print(Text.assemble(("  warning", "yellow"), f" {warning}"), soft_wrap=True)


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


@contextmanager
def _bar(title: str) -> "Iterator[Any]":
    """A progress bar; yields a function of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
