"""The command that shows what training does to its samples: augment-preview."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renalseg.cli.common import Preset, StageName, app, configuration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from renalseg.config import Config
    from renalseg.io.kits import KitsCase


@app.command()
def augment_preview(
    data: Annotated[Path, typer.Option(help="dataset in KiTS23 layout")],
    out: Annotated[Path, typer.Option(help="PNG file to write")],
    case: Annotated[str | None, typer.Option(help="which case; the first with labels where none is named")] = None,
    stage: Annotated[StageName, typer.Option(help="whose grid and settings")] = StageName.lesion,
    preset: Preset = None,
    config: Annotated[Path | None, typer.Option(help="configuration file instead of a preset")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of all draws")] = 0,
) -> None:
    """Draw one training sample, each augmentation alone, all together, and lesions pasted where training does that."""
    from itertools import chain

    from renalseg.core.labels import MASSES
    from renalseg.report.augment_sheet import augment_sheet
    from renalseg.train.augment.preview import most_shown, pasted, versions

    settings = configuration(preset, config)
    training = settings.training[stage.value]
    chosen, others = _choose(data, case)
    image, labels = _arrays(chosen, stage, settings)
    start, stop = most_shown(labels, training.patch[0])
    image, labels = image[start:stop], labels[start:stop]
    panels = versions(image, labels, training.augmentation, seed)
    if training.paste_probability > 0:
        found = (_arrays(other, stage, settings) for other in others)
        donor = next((arrays for arrays in found if MASSES.mask(arrays[1]).any()), None)
        panels = chain(panels, pasted(image, labels, donor, seed)) if donor else panels
    subtitle = f"{chosen.case_id} · {stage.value} stage, {settings.name} · {' x '.join(map(str, image.shape))}"
    title = "Training augmentation: each operation alone, then all together"
    augment_sheet(panels, out, title, settings.intensity.clip_hu, f"{subtitle} voxels (z, y, x) · seed {seed}")
    print(out)


def _arrays(case: "KitsCase", stage: StageName, settings: "Config") -> "tuple[NDArray[np.float16], NDArray[np.uint8]]":
    """Image and labels of a case on the stage's grid."""
    from renalseg.io.kits import read_case
    from renalseg.train.prepare import coarse_arrays, fine_arrays

    ct, truth = read_case(case)
    return (coarse_arrays if stage is StageName.coarse else fine_arrays)(ct, truth, settings)


def _choose(data: Path, case_id: str | None) -> "tuple[KitsCase, list[KitsCase]]":
    """The case that is asked for, or the first, and the others with image and labels."""
    from renalseg.core.errors import InputError
    from renalseg.io.kits import list_cases

    cases = [c for c in list_cases(data) if c.imaging and c.segmentation]
    found = next((c for c in cases if case_id in (None, c.case_id)), None)
    if found is None:
        what = "case with image and labels" if case_id is None else f"case {case_id} with image and labels"
        raise InputError(f"{data} holds no {what}; check the id or the dataset folder.")
    return found, [c for c in cases if c != found]
