"""The command for those who have results: report."""

from pathlib import Path
from typing import Annotated

import typer

from renalseg.cli.common import app


@app.command()
def report(
    results: Annotated[Path, typer.Argument(metavar="DIR", help="folder that segment wrote into")],
    ct: Annotated[
        list[Path] | None, typer.Option(help="the segmented CT, a file, DICOM folder or zip, dataset; repeat for more")
    ] = None,
) -> None:
    """Write one HTML page a case, with a viewer, and index.html over all of them."""
    from rich.console import Console
    from rich.text import Text

    from renalseg.batch import list_inputs
    from renalseg.core.errors import InputError
    from renalseg.report.assess import assess
    from renalseg.report.page.folder import INDEX, find_results, write_report

    names = find_results(results)
    cts, refused = list_inputs(ct or [])
    for outcome in refused:
        raise InputError(str(outcome.error))
    for name, path in cts.items():
        if name not in names:
            raise InputError(f"{path} is the CT of {name}, which has no result in {results}; segment it first")
    console = Console(stderr=True)
    with console.status("Starting") as status:
        entries = write_report(results, cts, assess, on_case=lambda name: status.update(Text(f"{name} ...")))
    failed = [entry for entry in entries if entry.error]
    for entry in failed:
        console.print(Text.assemble((f"failed {entry.name}", "red"), f": {entry.error}"), soft_wrap=True)
    pages = sum(entry.page is not None for entry in entries)
    without = len(entries) - len(failed) - pages
    hint = f"; {without} without a page of their own: name their CTs with --ct" if without else ""
    console.print(Text(f"{pages} of {len(entries)} cases with a page; {results / INDEX}{hint}"), soft_wrap=True)
    if failed:
        raise typer.Exit(2 if len(failed) == len(entries) else 1)
