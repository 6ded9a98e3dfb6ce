"""Commands for those who have a CT: demo, segment, evaluate, describe."""

from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from renalseg.cli.common import Device, Precision, Preset, app, bar, configuration, table


class Missing(StrEnum):
    """What ``evaluate`` does about a case without a usable prediction."""

    error = "error"
    zero = "zero"


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
    rows = table("evaluation class", "Dice", "surface Dice")
    for hec in HECS:
        rows.add_row(hec.title, f"{scores.dice[hec.name]:.4f}", f"{scores.surface_dice[hec.name]:.4f}")
    console.print(rows)
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
    measure: Annotated[
        bool, typer.Option("--measure", help="CASE.measurements.json, kidneys.csv, lesions.csv")
    ] = False,
    report: Annotated[bool, typer.Option("--report", help="CASE.html with viewer, lesions, nephrometry")] = False,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="CASE.seg.dcm; DICOM input")] = False,
    dicom_sr: Annotated[bool, typer.Option("--dicom-sr", help="CASE.sr.dcm and CASE.seg.dcm; DICOM input")] = False,
    dicom_labelmap: Annotated[
        bool, typer.Option("--dicom-labelmap", help="the SEG as a label map, which older programs do not read")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="also what OUT holds of the same input, weights and settings")
    ] = False,
) -> None:
    """Segment CTs: NIfTI, NRRD, MHA, DICOM folders or zips, or a dataset in KiTS23 layout.

    What is finished in OUT, from the same input, weights and settings, is not segmented again.
    """
    from rich.console import Console
    from rich.text import Text

    from renalseg.core.errors import InputError

    if len(inputs) == 1 and not inputs[0].exists():  # said at once, before torch is loaded
        raise InputError(f"{inputs[0]} does not exist; check the path.")

    from renalseg.batch import Extras, list_inputs, segment_all
    from renalseg.predict.segmenter import Segmenter

    cases, refused = list_inputs(inputs)
    segmenter = Segmenter(weights or "default", device, precision, tta)
    extras = Extras(measure, report, dicom_seg or (dicom_labelmap and not dicom_sr), dicom_sr, dicom_labelmap)
    console, failed, total = Console(stderr=True), list[str](), len(cases) + len(refused)
    outcomes = []
    with console.status("Starting") as status:
        done = segment_all(cases, out, segmenter, lambda name: status.update(Text(f"{name} ...")), extras, again)
        for outcome in chain(refused, done):
            outcomes.append(outcome)
            if outcome.record is not None:
                _print_record(console, outcome.record, outcome.kept)
                continue
            failed.append(outcome.name)
            start = ("renalseg", "") if total == 1 else (f"failed {outcome.name}", "red")
            console.print(Text.assemble(start, f": {outcome.error}"), soft_wrap=True)
    for sentence in _write_cohort(outcomes, out, extras):
        console.print(Text.assemble(("not in the tables ", "yellow"), sentence), soft_wrap=True)
    if total > 1:
        kept = sum(outcome.kept for outcome in outcomes)
        summary = f"{total - len(failed)} of {total} cases segmented into {out}" + (f", {kept} earlier" if kept else "")
        console.print(Text(summary + (f"; failed: {', '.join(failed)}" if failed else "")), soft_wrap=True)
    if failed:
        raise typer.Exit(2 if len(failed) == total else 1)


def _write_cohort(outcomes: list[Any], out: Path, extras: Any) -> list[str]:
    """Tables of all measured cases in ``out``, and the page that links theirs; a sentence for each left out.

    Those that are there are kept up to date, whether they are asked for or not.
    """
    from renalseg.report.measure.tables import has_tables, write_folder_tables
    from renalseg.report.page.folder import has_index, write_index

    if not any(outcome.record for outcome in outcomes):
        return []
    if extras.page or has_index(out):
        write_index(out, {o.name: o.error for o in outcomes if o.error is not None})
    return write_folder_tables(out) if extras.measurements or has_tables(out) else []


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
    with bar("evaluating") as advance:
        score(predictions, truth, out, missing.value, cases, workers, lambda _, done, total: advance(done, total))
    console.print(Markdown((out / "metrics.md").read_text()))


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
    settings = opened.config if opened else configuration(preset, None)
    if yaml:
        print(settings.to_yaml(), end="")
        return
    Console().print(tables(settings, opened))


def _print_record(console: Any, record: dict[str, Any], kept: bool = False) -> None:
    """One case: what was found, confidence, cost, warnings; as ``Text``: names may hold brackets, rich's markup."""
    from rich.text import Text

    volumes = ", ".join(f"{name} {ml:.1f} ml" for name, ml in record["volumes_ml"].items())
    found = volumes if record["kidney_found"] else "no kidney found"
    device = record["peak_memory_mb"]["device"]
    memory = f"{record['peak_memory_mb']['host']:.0f} MB" + (f", device {device:.0f} MB" if device else "")
    trust = f"confidence {record['confidence']['value']:.2f}"
    cost = "finished earlier" if kept else f"{record['timings_s']['total']:.1f} s, {memory}"
    line = f": {found}; {trust}; {cost}"
    console.print(Text.assemble((record["case"], "bold"), line), soft_wrap=True)
    for warning in record["warnings"]:
        console.print(Text.assemble(("  warning", "yellow"), f" {warning}"), soft_wrap=True)
