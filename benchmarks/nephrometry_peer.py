"""Scores of neheller/seg-to-nephrometry, for ``nephrometry.py --peer``.

    git clone https://github.com/neheller/seg-to-nephrometry PEER
    python benchmarks/nephrometry_peer.py --peer PEER --labels KITS23_LABELS --cases case_00001 ... --out peer.json

Runs in an environment of its own with what the peer needs: numpy 1.26, scipy 1.10 (it fails with 1.17), nibabel,
opencv-python-headless 4.8, matplotlib 3.7, pydicom, tqdm, reorient-nii. It needs a CT, which label maps have none of: a
stand-in of 150 HU under the labels and -100 HU elsewhere. Maps are cut to the kidneys, evenly to both sides, since the
peer tells the sides by the middle of the array. Cases that are in ``peer.json`` already are left out.
"""

import argparse
import contextlib
import io
import json
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np

MARGIN = 12
"""Voxels kept round the kidneys in plane; two slices at each end."""


def cut(labels: np.ndarray) -> np.ndarray:
    """The labels [z, y, x] round the kidneys, with the same middle from right to left."""
    z, y, x = (np.flatnonzero((labels > 0).any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    middle = labels.shape[2] / 2
    first = max(0, int(middle - (max(middle - x[0], x[-1] + 1 - middle) + MARGIN)))
    rows = slice(max(0, y[0] - MARGIN), y[-1] + 1 + MARGIN)
    return np.ascontiguousarray(labels[max(0, z[0] - 2) : z[-1] + 3, rows, first : labels.shape[2] - first])


def score(path: Path, compute: object) -> dict[str, object]:
    """The peer's scores of one map, or its error; and its CPU seconds, reading not counted."""
    image = nib.load(path)
    labels = cut(np.asarray(image.dataobj).astype(np.uint8))
    ct = np.where(labels > 0, 150, -100).astype(np.int16)
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            images = nib.Nifti1Image(ct, image.affine), nib.Nifti1Image(labels, image.affine)
            found: dict[str, object] = {"result": compute(*images)}  # type: ignore[operator]
    except Exception as problem:
        found = {"error": f"{type(problem).__name__}: {problem}"}
    return found | {"cpu_s": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="the peer's clone")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sys.path.insert(0, str(arguments.peer))
    from seg_to_nephrometry import compute_scores_nib  # type: ignore[import-not-found]

    found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for case in arguments.cases:
        if case not in found:
            found[case] = score(arguments.labels / case / "segmentation.nii.gz", compute_scores_nib)
            arguments.out.write_text(json.dumps(found, default=float))
            print(case, found[case], flush=True)
    seconds = sorted(row["cpu_s"] for row in found.values())
    print(f"CPU seconds a map: median {seconds[len(seconds) // 2]:.2f}, most {seconds[-1]:.2f}")


if __name__ == "__main__":
    main()
