"""The command that measures this machine: benchmark."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from renalseg.cli.common import Device, Precision, Preset, app


class CaseName(StrEnum):
    """Sizes of a drawn CT, as arguments."""

    median = "median"
    thin = "thin"
    largest = "largest"


@app.command()
def benchmark(
    case: Annotated[
        list[CaseName] | None,
        typer.Option(help="104, 635 or 1059 slices, drawn; repeat for several  [default: median]"),
    ] = None,
    file: Annotated[Path | None, typer.Option("--input", help="a CT of your own instead")] = None,
    preset: Preset = None,
    weights: Annotated[str | None, typer.Option(help="packaged name or folder  [default: default]")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="runs that count, after one that does not")] = 3,
    tta: Annotated[bool, typer.Option(help="average with the mirror image along z")] = True,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Annotated[Path | None, typer.Option(help="file for all figures")] = None,
) -> None:
    """Measure time, memory and FLOPs of a case here: one table to paste.

    --preset measures its networks untrained; a threshold answers in their place, at the same cost.
    """
    from dataclasses import asdict
    from tempfile import TemporaryDirectory

    from rich.console import Console

    from renalseg.benchmark import as_markdown, measure_case, untrained
    from renalseg.config import preset as named
    from renalseg.core.errors import ConfigError
    from renalseg.io.files import write_json
    from renalseg.predict.segmenter import Segmenter

    if preset is not None and (weights is not None or file is not None):
        raise ConfigError("--preset measures untrained networks on a drawn CT; leave out --weights and --input")
    if file is not None and case:
        raise ConfigError("give --case or --input, not both")
    console = Console(stderr=True)
    with TemporaryDirectory() as folder, console.status("Starting") as status:
        source = untrained(named(preset), Path(folder)) if preset is not None else weights or "default"
        segmenter = Segmenter(source, device, precision, tta)
        results = []
        for item in [file] if file is not None else [c.value for c in case or [CaseName.median]]:
            status.update(f"measuring {item} ...")
            results.append(measure_case(segmenter, item, repeats))
    print(as_markdown(results))
    if json is not None:
        write_json([asdict(r) for r in results], json)
