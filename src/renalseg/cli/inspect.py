"""The command for those who have a dataset: inspect."""

from pathlib import Path
from typing import Annotated

import typer

from renalseg.cli.common import app, bar, table

MOST_SENTENCES = 20


@app.command()
def inspect(
    dataset: Annotated[Path, typer.Argument(help="dataset in KiTS23 layout; label maps alone will do")],
    out: Annotated[Path, typer.Option(help="folder for inspect.csv, inspect.json, inspect.md and pictures")],
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
) -> None:
    """Check and measure every case of a dataset, beside the percentiles of KiTS23."""
    from rich.console import Console
    from rich.text import Text

    from renalseg.report.inspect import inspect_dataset
    from renalseg.report.inspect.quantities import QUANTITIES, percentiles

    with bar("inspecting") as advance:
        result = inspect_dataset(dataset, out, workers, lambda _, done, total: advance(done, total))
    errors, console = Console(stderr=True), Console()
    for finding in result.findings[:MOST_SENTENCES]:
        start = ("broken", "red") if finding.is_error else ("odd", "yellow")
        errors.print(Text.assemble(start, f"  {finding.message}"), soft_wrap=True)
    if len(result.findings) > MOST_SENTENCES:
        errors.print(f"and {len(result.findings) - MOST_SENTENCES} more findings in inspect.md", soft_wrap=True)
    rows = table("quantity", "n", "5 %", "median", "95 %", "KiTS23: 5 %", "median", "95 %")
    for quantity in QUANTITIES:
        if values := quantity.values(result.counted):
            both = (percentiles(values), quantity.published or (None,) * 7)
            cells = ("" if p[i] is None else f"{p[i]:.4g}" for p in both for i in (1, 3, 5))
            rows.add_row(quantity.label, str(len(values)), *cells)
    if rows.row_count:
        console.print(rows)
    usable = len(result.cases) - len(result.broken)
    console.print(Text(f"{usable} of {len(result.cases)} cases usable; {out / 'inspect.md'}"), soft_wrap=True)
    if result.broken:
        raise typer.Exit(1 if usable else 2)
