"""Cold start of ``renalseg segment``: seconds from the process's start to the first network step, by what takes them.

    python benchmarks/cold_start.py CT [--runs 5]

Each run is a process of its own; the median of each step over the runs is printed, and the runs' totals. Files are in
the system's cache after the first run, which does not count.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

STEPS = ("Python", "command line", "libraries", "weights", "reading the CT", "its coarse grid")

CHILD = """
import json, sys, time
import psutil
started, marks = psutil.Process().create_time(), []
mark = lambda: marks.append(time.time() - started)
mark()
from renalseg.cli import main
mark()
from renalseg.batch import run
from renalseg.predict import pipeline
from renalseg.predict.segmenter import Segmenter
mark()

def marked(function):
    def run_marked(*arguments, **more):
        result = function(*arguments, **more)
        mark()
        return result
    return run_marked

def first_step(*arguments, **more):
    mark()
    print(json.dumps(marks), flush=True)
    raise SystemExit

Segmenter.__init__ = marked(Segmenter.__init__)
run.read_volume = marked(run.read_volume)
pipeline.coarse_probability = first_step
sys.argv[0] = "renalseg"
main()
"""


def start(ct: Path) -> list[float]:
    """Seconds of each step in one process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", CHILD, "segment", str(ct), "--out", out]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    marks = json.loads(done.stdout)
    return [b - a for a, b in zip([0.0, *marks], marks, strict=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    start(a.ct)
    runs = [start(a.ct) for _ in range(a.runs)]
    print("| step | median, s |\n|---|---:|")
    for name, seconds in zip(STEPS, zip(*runs, strict=True), strict=True):
        print(f"| {name} | {median(seconds):.2f} |")
    totals = sorted(map(sum, runs))
    print(
        f"| to the first network step | {median(totals):.2f} |\n\n{a.runs} runs, {totals[0]:.2f} to {totals[-1]:.2f} s"
    )


if __name__ == "__main__":
    main()
