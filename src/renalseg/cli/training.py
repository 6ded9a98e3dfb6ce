"""Commands for those who train: phantom, prepare, train."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from renalseg.cli.common import Deterministic, Device, Keep, Precision, Preset, StageName, app, bar, configuration


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="folder for the dataset, KiTS23 layout")],
    cases: Annotated[int, typer.Option(min=1, help="how many")],
    seed: Annotated[int, typer.Option(min=0, help="of the whole cohort")],
    labels: Annotated[Path | None, typer.Option(help="label maps to set into the bodies, KiTS23 layout")] = None,
    bodies: Annotated[
        Path | None, typer.Option(help="real CT to set the kidneys into: NAME/ct.nii.gz and more")
    ] = None,
    deform: Annotated[bool, typer.Option("--deform", help="deform the label maps; with --labels")] = False,
    phase: Annotated[
        list[str] | None, typer.Option(help="native, arterial, nephrographic or excretory; repeat for several")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    negatives: Annotated[float, typer.Option(min=0, max=1, help="share of scans without kidneys")] = 0.0,
    max_slices: Annotated[int | None, typer.Option(min=16, help="upper bound of the slices of a scan")] = None,
    in_plane: Annotated[int, typer.Option(min=64, help="matrix size; the field of view stays")] = 512,
) -> None:
    """Render CT phantoms with their true labels."""
    from renalseg.core.errors import ConfigError
    from renalseg.phantom.cohort import write_cohort
    from renalseg.phantom.draws import PHASES

    if labels is not None and (negatives or max_slices is not None or in_plane != 512):
        raise ConfigError("with --labels the grid is that of the label maps; leave out the options that change it")
    if deform and labels is None:
        raise ConfigError("--deform changes the label maps of --labels; give them, or leave --deform out")
    done = 0
    with bar("rendering") as advance:

        def on_case(index: int, record: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            advance(done, cases)

        write_cohort(
            out,
            cases,
            seed,
            labels,
            workers,
            on_case,
            in_plane=in_plane,
            max_slices=max_slices,
            negatives=negatives,
            bodies_dir=bodies,
            deform=deform,
            phases=phase or PHASES,
        )
    print(f"{cases} cases in {out}")


@app.command()
def prepare(
    dataset: Annotated[Path, typer.Argument(help="dataset in KiTS23 layout")],
    out: Annotated[Path, typer.Option(help="folder of the cache")],
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(help="configuration file instead of a preset")] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    coarse: Annotated[
        str | None, typer.Option(help="weights whose coarse stage finds the regions (preparation.roi: coarse)")
    ] = None,
    device: Device = "auto",
) -> None:
    """Resample every case once, for training; interrupted, it goes on where it stopped."""
    from renalseg.io.files import check_writable
    from renalseg.io.kits import trainable_cases
    from renalseg.train.cache import GRIDS
    from renalseg.train.cache import prepare as resample
    from renalseg.train.index import write_index

    settings = configuration(preset, config)
    cases = [c.case_id for c in trainable_cases(dataset)]
    check_writable(out)
    with bar("preparing") as advance:

        def on_case(_: str, done: int, total: int) -> None:
            advance(done, total)

        prepared = resample(dataset, out, GRIDS, settings, cases, workers, on_case, coarse, device)
        write_index(dataset, out, settings, prepared)
    size = sum(p.image.stat().st_size + p.labels.stat().st_size for grid in prepared.values() for p in grid) / 1e9
    print(f"{len(cases)} cases in {out}, {size:.2f} GB")


@app.command()
def train(
    stage: Annotated[StageName, typer.Argument(help="which network")],
    data: Annotated[Path, typer.Option(help="dataset in KiTS23 layout, or a cache from `prepare`")],
    out: Annotated[Path, typer.Option(help="weights folder; the three stages share it")],
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(help="configuration file instead of a preset")] = None,
    fold: Annotated[int | None, typer.Option(help="hold out this fold of five for validation")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last finished epoch")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare and load data")] = 0,
    validation_cases: Annotated[int, typer.Option(min=0, help="cases of the fold scored at a validation")] = 4,
    cascade: Annotated[Path | None, typer.Option(help="weights of the other stages for validation")] = None,
    initial: Annotated[str | None, typer.Option(help="weights, by name or folder, to train further")] = None,
    deterministic: Deterministic = False,
    keep: Annotated[Keep, typer.Option(help="weights of the best validation, or of the last epoch")] = Keep.best,
) -> None:
    """Train one stage. On several GPUs: torchrun --nproc-per-node N -m renalseg train ..."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from renalseg.report.run_report import RunReport
    from renalseg.train.run import Hooks, Request, run_training

    request = Request(
        stage=stage.value,
        data=data,
        out=out,
        config=configuration(preset, config),
        fold=fold,
        resume=resume,
        device=device,
        precision=precision,
        workers=workers,
        validation_cases=validation_cases,
        cascade=cascade,
        initial=initial,
        deterministic=deterministic,
        keep=keep.value,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one alone speaks
    with Progress(*columns, disable=not first) as bar, RunReport(out, stage.value, request.config, fold) as report:
        preparing = bar.add_task("preparing", total=None)
        training = bar.add_task(f"training {stage.value}", total=None, start=False)

        def on_step(step: int, steps: int, loss: float) -> None:
            bar.start_task(training)
            bar.update(training, completed=step, total=steps, description=f"training {stage.value}  loss {loss:.3f}")

        def on_case(_: str, done: int, total: int) -> None:
            bar.update(preparing, completed=done, total=total)

        result = run_training(request, Hooks(on_case, on_step, report.update, report.add_example))
    if first:
        print(f"{stage.value}: {result['epoch']} epochs done; weights in {out}")
