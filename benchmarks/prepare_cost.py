"""What KiTS23 costs around the training: ``renalseg prepare`` and ``inspect``, the cache, checkpoints, results.

    python benchmarks/prepare_cost.py [--preset paper] [--slices 1059] [--typical 104] [--labels KITS23_LABELS]
        [--predictions FOLDER]

Time and memory are those of ``renalseg prepare`` for one made-up case of ``--slices`` x 512 x 512, the largest of
KiTS23, start included. A case of ``--typical`` slices, the median, is prepared and inspected several times in this
process: the seconds a case without the start, and times 489 in one process, a projection. With ``--labels``, the
regions of those label maps give the size of the cache a case, their numbers of slices a projection of the time that
knows that some cases are long (a straight line through the two sizes), and they are inspected as they are. With
``--predictions``, the files in a folder of results give the disk space of 489. Checkpoints are counted from the
networks' parameters.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from renalseg.config import STAGES, Config, preset
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases, read_labels
from renalseg.io.nifti import write_nifti
from renalseg.model.resunet import build
from renalseg.report.inspect import inspect_dataset
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.prepare import training_box

KITS23_CASES, FOLDS, BYTES_A_VOXEL = 489, 5, 3  # float16 image, uint8 labels
REPEATS = 4


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


def largest_case(slices: int, name: str) -> float:
    """Prints time and memory of the command for one case; returns its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        data, cache = Path(folder) / "data", Path(folder) / "cache"
        (data / "case_00000").mkdir(parents=True)
        write_case(data / "case_00000", slices)
        started = time.perf_counter()
        command = [sys.executable, "-m", "renalseg", "prepare", data, "--out", cache, "--preset", name]
        subprocess.run([str(part) for part in command], check=True)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
        size = sum(f.stat().st_size for f in cache.rglob("*.npy")) / 1e6
    print(f"prepare, {slices} x 512 x 512, preset {name}: {seconds:.1f} s with its start, peak {peak:.2f} GB, ", end="")
    print(f"{size:.0f} MB of cache")
    return seconds


def typical_case(slices: int, config: Config) -> float:
    """Prints the seconds of preparing and inspecting a case without the start; returns the former."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        ids = [f"case_{i:05d}" for i in range(REPEATS)]
        for case in ids:
            (data / case).mkdir(parents=True)
            write_case(data / case, slices)
        prepared = seconds_a_case(lambda tick: prepare(data, Path(folder) / "cache", GRIDS, config, ids, 1, tick))
        inspected = seconds_a_case(lambda tick: inspect_dataset(data, None, 1, tick))
    for what, seconds in (("prepare", prepared), ("inspect", inspected)):
        print(f"{what}, {slices} x 512 x 512: {seconds:.2f} s a case, times {KITS23_CASES} in one process ", end="")
        print(f"{seconds * KITS23_CASES / 60:.0f} min (projection)")
    return prepared


def seconds_a_case(work: Callable[[Callable[[str, int, int], None]], object]) -> float:
    """Median time between the ends of two cases; the first one, which loads modules, does not count."""
    ends: list[float] = []
    work(lambda *_: ends.append(time.perf_counter()))
    return float(np.median(np.diff(ends)))


def label_maps(labels: Path, config: Config) -> np.ndarray:
    """Prints the cache's size by the regions of label maps, and the time of inspecting them; returns their slices."""
    started = time.perf_counter()
    count = len(inspect_dataset(labels, None).cases)
    print(f"inspect, {count} label maps without CT: {(time.perf_counter() - started) / count:.2f} s a case")
    sizes, slices = [], []
    for case in list_cases(labels):
        volume = read_labels(case.segmentation)
        box = training_box(volume, config, case.case_id)
        voxels = box.shape[0] * np.prod(config.fine.in_plane) + np.prod(config.coarse.shape)
        sizes.append(float(voxels) * BYTES_A_VOXEL / 1e6)
        slices.append(volume.shape[0])
    print(f"cache, {count} label maps: median {np.median(sizes):.0f}, mean {np.mean(sizes):.0f}, ", end="")
    print(f"largest {max(sizes):.0f} MB a case; times {KITS23_CASES}: {np.mean(sizes) * KITS23_CASES / 1e3:.1f} GB")
    print(f"slices of these: median {np.median(slices):.0f}, mean {np.mean(slices):.0f}, most {max(slices)}")
    return np.array(slices)


def predictions(folder: Path) -> None:
    """Prints the disk space of results."""
    count = len(list(folder.glob("*.nii.gz")))
    for suffix in (".nii.gz", ".json", ".png"):
        mb = sum(f.stat().st_size for f in folder.glob(f"*{suffix}")) / count / 1e6
        print(f"predictions, {count} cases: {suffix} {mb:.3f} MB a case; times {KITS23_CASES}: ", end="")
        print(f"{mb * KITS23_CASES:.0f} MB")


def checkpoints(config: Config) -> None:
    """Prints the size of states to resume (network, two moments, averaged weights where on) and of weights, float32."""
    weights = states = 0
    for stage in STAGES:
        parameters = sum(p.numel() for p in build(config.network(stage)).parameters())
        weights += 4 * parameters
        states += 4 * parameters * (4 if config.training[stage].ema else 3)
        print(f"{stage}: {parameters} parameters")
    for what, size in (("last.safetensors", states), ("weights", weights)):
        print(f"{what}: {size / 1e6:.1f} MB a fold, {size * FOLDS / 1e6:.0f} MB for {FOLDS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--slices", type=int, default=1059)
    parser.add_argument("--typical", type=int, default=104)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--predictions", type=Path)
    a = parser.parse_args()
    config = preset(a.preset)
    long, short = largest_case(a.slices, a.preset), typical_case(a.typical, config)
    checkpoints(config)
    if a.labels:
        slices = label_maps(a.labels, config)
        each = short + (slices - a.typical) * (long - short) / (a.slices - a.typical)
        hours = each.mean() * KITS23_CASES / 3600
        print(
            f"prepare, by the slices of these: {each.mean():.1f} s a case on average, times {KITS23_CASES} in one ",
            end="",
        )
        print(f"process: {hours:.2f} h (projection)")
    if a.predictions:
        predictions(a.predictions)


if __name__ == "__main__":
    main()
