"""Renders what the weights that ship with renalseg learn from: phantoms from KiTS23 label maps and procedural ones.

    python recipes/packaged_weights.py --labels KITS23_LABELS --out DATA
    renalseg train coarse --data DATA --out RUN --config src/renalseg/weights/default/config.yaml
    renalseg train kidney --data DATA --out RUN --config src/renalseg/weights/default/config.yaml
    renalseg train lesion --data DATA --out RUN --config src/renalseg/weights/default/config.yaml

Label maps of fold 0, drawn over the maps given, are never used, so they stay unseen. Every second voxel in plane, and
slices of about 3 mm, are enough for the preset's grid and keep rendering short.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from renalseg.core.volume import Grid, Volume
from renalseg.io.kits import fold_split, list_cases, read_labels
from renalseg.io.nifti import write_nifti
from renalseg.phantom.case import render_case

SEED = 20261123
FROM_LABELS, PROCEDURAL = 60, 40
MIN_SLICE_MM, MAX_SLICES = 2.4, 130
NO_KIDNEYS = 0.15


def thin_out(labels: Volume) -> Volume:
    """Every second voxel in plane, and as few slices as keep them under about ``2 * MIN_SLICE_MM``."""
    step = (max(1, int(MIN_SLICE_MM / labels.spacing_mm[0] + 0.5)), 2, 2)
    array = np.ascontiguousarray(labels.array[:: step[0], :: step[1], :: step[2]])
    affine = labels.affine @ np.diag([*(float(s) for s in step), 1.0])
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return Volume.from_stored(array, Grid(shape, affine), labels.name)


def render(job: tuple[int, Path | None, Path]) -> str:
    """Renders one case; a finished one is kept."""
    index, labels, out = job
    folder = out / f"case_{index:05d}"
    if not (folder / "meta.json").exists():
        if labels is not None:
            ct, truth, meta = render_case(SEED + index, labels=thin_out(read_labels(labels)))
        else:
            generator = np.random.default_rng([SEED, index])
            kidneys = "none" if generator.random() < NO_KIDNEYS else "both"
            ct, truth, meta = render_case(SEED + index, in_plane=256, max_slices=MAX_SLICES, kidneys=kidneys)
        write_nifti(ct, folder / "imaging.nii.gz")
        write_nifti(truth, folder / "segmentation.nii.gz")
        (folder / "meta.json").write_text(json.dumps(meta | {"labels": labels and labels.parent.name}, default=str))
    return folder.name


def render_all(labels: Path, out: Path, workers: int) -> None:
    """Renders the training cohort."""
    maps = {c.case_id: c.segmentation for c in list_cases(labels)}
    train, _ = fold_split(list(maps), 0)
    chosen = [maps[i] for i in train][:FROM_LABELS]
    jobs = [(i, m, out) for i, m in enumerate(chosen)] + [(1000 + i, None, out) for i in range(PROCEDURAL)]
    order = np.random.default_rng(SEED).permutation(len(jobs))
    with ProcessPoolExecutor(workers) as pool:
        for count, name in enumerate(pool.map(render, [jobs[i] for i in order]), 1):
            print(f"{count}/{len(jobs)} {name}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    render_all(arguments.labels, arguments.out, arguments.workers)
