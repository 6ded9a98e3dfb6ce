"""What ``renalseg prepare`` costs: time and memory for the largest case of KiTS23, and the size of the whole cache.

    python benchmarks/prepare_cost.py [--preset paper] [--slices 1059] [--labels KITS23_LABELS]

The case is a made-up one of ``--slices`` x 512 x 512. With ``--labels``, the regions of those label maps give the size
of the cache a case, and times 489 in all.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from renalseg.config import Config, preset
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases, read_labels
from renalseg.io.nifti import write_nifti
from renalseg.train.prepare import training_box

KITS23_CASES, BYTES_A_VOXEL = 489, 3  # float16 image, uint8 labels


def write_case(folder: Path, slices: int) -> None:
    """A noise CT with two ellipsoid kidneys, one of them with a tumor."""
    generator = np.random.default_rng(0)
    labels = np.zeros((slices, 512, 512), np.uint8)
    tile = generator.integers(-100, 200, (64, 512, 512), dtype=np.int16)
    ct = np.concatenate([tile] * -(-slices // 64))[:slices]
    y, x = np.ogrid[:512, :512]
    for z in range(slices):
        h = 1 - ((z - slices / 2) / (slices / 6)) ** 2
        for centre in (160, 350) if h > 0 else ():
            labels[z][((y - 300) / 50) ** 2 + ((x - centre) / 45) ** 2 < h] = 1
            labels[z][((y - 290) / 20) ** 2 + ((x - centre) / 20) ** 2 < h - 0.5] = 2
    spacing = (0.5, 0.78, 0.78)
    write_nifti(Volume.from_array(ct, spacing), folder / "imaging.nii.gz")
    write_nifti(Volume.from_array(labels, spacing), folder / "segmentation.nii.gz")


def cache_sizes(labels: Path, config: Config) -> np.ndarray:
    """MB of cache of each label map's case, both grids."""
    sizes = []
    for case in list_cases(labels):
        box = training_box(read_labels(case.segmentation), config, case.case_id)
        voxels = box.shape[0] * np.prod(config.fine.in_plane) + np.prod(config.coarse.shape)
        sizes.append(float(voxels) * BYTES_A_VOXEL / 1e6)
    return np.array(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--slices", type=int, default=1059)
    parser.add_argument("--labels", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, cache = Path(folder) / "data", Path(folder) / "cache"
        (data / "case_00000").mkdir(parents=True)
        write_case(data / "case_00000", a.slices)
        started = time.perf_counter()
        command = [sys.executable, "-m", "renalseg", "prepare", data, "--out", cache, "--preset", a.preset]
        subprocess.run([str(part) for part in command], check=True)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
        size = sum(f.stat().st_size for f in cache.rglob("*.npy")) / 1e6
    print(f"{a.slices} x 512 x 512, preset {a.preset}: {seconds:.1f} s, peak {peak:.2f} GB, {size:.0f} MB of cache")
    if a.labels:
        sizes = cache_sizes(a.labels, preset(a.preset))
        whole = sizes.mean() * KITS23_CASES / 1e3
        print(f"{len(sizes)} label maps: median {np.median(sizes):.0f}, mean {sizes.mean():.0f}, ", end="")
        print(f"largest {sizes.max():.0f} MB a case; times {KITS23_CASES}: {whole:.1f} GB")


if __name__ == "__main__":
    main()
