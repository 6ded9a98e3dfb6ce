"""The command for those who have label maps: measure."""

from pathlib import Path
from typing import Annotated

import typer

from renalseg.cli.common import app, bar


@app.command()
def measure(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="LABELS...", help="label maps, folders of them, datasets in KiTS23 layout")
    ],
    ct: Annotated[
        Path | None, typer.Option(help="CT of the only label map, for HU; a dataset's images are found alone")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for CASE.measurements.json, kidneys.csv and lesions.csv")] = Path(
        "measurements"
    ),
) -> None:
    """Measure kidneys and lesions: volumes, diameters, place, HU. Research use only, not a medical device."""
    from rich.console import Console
    from rich.text import Text

    from renalseg.report.measure.files import label_files, measure_files
    from renalseg.report.measure.tables import KIDNEYS, LESIONS, write_folder_tables

    files = label_files(inputs, ct)
    console, done, failed = Console(stderr=True), 0, list[str]()
    with bar("measuring") as advance:
        advance(0, len(files))
        for outcome in measure_files(files, out):
            if outcome.measurements is not None:
                done += 1
            else:
                failed.append(f"{outcome.name}: {outcome.error}")
            advance(done + len(failed), len(files))
    for sentence in failed:
        console.print(Text.assemble(("failed ", "red"), sentence), soft_wrap=True)
    if not done:
        raise typer.Exit(2)
    for sentence in write_folder_tables(out):
        console.print(Text.assemble(("not in the tables ", "yellow"), sentence), soft_wrap=True)
    tables = f"{out / KIDNEYS}, {out / LESIONS}"
    console.print(Text(f"{done} of {len(files)} label maps measured; {tables}"), soft_wrap=True)
    if failed:
        raise typer.Exit(1)
