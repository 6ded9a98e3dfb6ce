"""Makes real bodies for phantoms: a CT with its own kidneys marked, which the phantom is to lose.

    python recipes/real_bodies.py --data CTS --out BODIES --names NAME [NAME ...] [--weights default]
    renalseg phantom --bodies BODIES ...

CTS holds ``NAME/ct.nii.gz``. Where ``NAME/organs.nii.gz`` (TotalSegmentator's classes) lies beside it, that marks the
kidneys; else the packaged weights find them, and what they find, widened by 3 mm on all sides, becomes
``BODIES/NAME/kidneys.nii.gz``. So the bodies of the second round of the packaged weights were made. Look at the marks
before use: an overlooked kidney stays in the body beside the new ones, and nothing tells a network that it is one.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from scipy import ndimage

from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.files import atomic_path
from renalseg.io.nifti import write_nifti
from renalseg.io.read import read_volume
from renalseg.phantom.bodies import CT, KIDNEYS, ORGANS
from renalseg.predict.segmenter import Segmenter

WIDENED_MM = 3.0


def widened(labels: Volume) -> Volume:
    """Not 0 wherever a label is within ``WIDENED_MM`` along each axis."""
    size = [2 * max(1, round(WIDENED_MM / spacing)) + 1 for spacing in labels.spacing_mm]
    return labels.with_array(ndimage.maximum_filter((labels.array > 0).astype(np.uint8), size))


def make_body(source: Path, out: Path, segmenter: Segmenter) -> None:
    """Writes one body.

    Raises:
        InputError: the CT cannot be read, or no kidney was found in it.
    """
    if (source / ORGANS).is_file():
        _copy(source / ORGANS, out / ORGANS)
    else:
        found = segmenter.segment(read_volume(source / CT)).labels
        if not found.array.any():
            raise InputError(f"{source / CT}: no kidney was found; mark them yourself in {out / KIDNEYS}")
        write_nifti(widened(found), out / KIDNEYS)
    _copy(source / CT, out / CT)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--names", nargs="+", required=True)
    parser.add_argument("--weights", default="default")
    a = parser.parse_args()
    segmenter = Segmenter(a.weights)
    for name in a.names:
        make_body(a.data / name, a.out / name, segmenter)
        print(a.out / name, flush=True)


if __name__ == "__main__":
    main()
