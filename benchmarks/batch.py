"""Many cases through one process: whether reading and writing beside the networks saves time.

    python benchmarks/batch.py CT [--cases 6] [--repeats 3] [--weights default] [--device auto]

The CT, under as many names, is segmented from file to files, one after another and as ``renalseg segment`` does it
(the next is read and the last is written meanwhile), by turns, after one turn that does not count. Prints the median
seconds a case of both, their ratio, and the share of the time in which a case is computed.
"""

import argparse
import shutil
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from renalseg.batch import list_inputs, segment_all, segment_file
from renalseg.io.read import case_name
from renalseg.predict.segmenter import Segmenter


def one_by_one(paths: list[Path], out: Path, segmenter: Segmenter) -> list[float]:
    """Seconds of computing each case."""
    return [segment_file(case_name(path), path, out, segmenter)["timings_s"]["total"] for path in paths]


def together(paths: list[Path], out: Path, segmenter: Segmenter) -> list[float]:
    """Seconds of computing each case."""
    seconds = []
    for outcome in segment_all(list_inputs(paths)[0], out, segmenter):
        assert outcome.record is not None, outcome.error
        seconds.append(outcome.record["timings_s"]["total"])
    return seconds


WAYS = {"one after another": one_by_one, "as a batch": together}


def measure(paths: list[Path], segmenter: Segmenter, repeats: int) -> dict[str, tuple[float, float]]:
    """For each way the median seconds a case, and the share of them in which it is computed."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for turn in range(repeats + 1):
        for name, run in WAYS.items():
            with TemporaryDirectory() as out:
                started = time.perf_counter()
                computing = sum(run(paths, Path(out), segmenter))
                wall = time.perf_counter() - started
            if turn > 0:
                runs[name].append((wall / len(paths), computing / wall))
    return {name: (median(w for w, _ in each), median(c for _, c in each)) for name, each in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--device", default="auto")
    a = parser.parse_args()
    segmenter = Segmenter(a.weights, a.device)
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}_{a.ct.name}" for i in range(a.cases)]
        for path in paths:
            shutil.copy(a.ct, path)
        found = measure(paths, segmenter, a.repeats)
    print("| | s a case | computing, % of the time |\n|---|---:|---:|")
    for name, (seconds, share) in found.items():
        print(f"| {name} | {seconds:.2f} | {100 * share:.0f} |")
    slow, fast = (seconds for seconds, _ in found.values())
    print(f"\n{segmenter.runtime.device}, {a.cases} cases, weights {a.weights}, median of {a.repeats}")
    print(f"one after another takes times as long: {slow / fast:.2f}")


if __name__ == "__main__":
    main()
