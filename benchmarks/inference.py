"""A whole case by the cascade, beside the same networks slid over the whole volume by MONAI; one machine, one run.

    python benchmarks/inference.py [--preset paper] [--case median] [--repeats 1] [--peer PYTHON SCRIPT]

Ours is complete: reading, three networks, mirror averaging, composition, files written (``renalseg.benchmark``). MONAI
``SlidingWindowInferer`` runs the kidney and the lesion network over all of the CT at its own resolution, windows as
large as ours, its default overlap of 0.25, with the mirror too; reading, composition and writing are not counted, in
its favour. It does so twice: with the networks as training leaves them (``ResUnet``), and on a CPU with our
slab-by-slab copies of them (``model/lean.py``) too, which tells what the cascade alone saves. All are untrained, in one
precision and memory layout. ``--peer`` runs another system's script afterwards, by the Python of its own environment,
with ``--shape`` and ``--spacing`` [z, y, x] of the case and the device; it prints JSON with ``case_s_no_mirror``, its
seconds for the case.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch
from monai.inferers import SlidingWindowInferer

from renalseg.benchmark import CASES, IN_PLANE, PIXEL_MM, as_markdown, draw_ct, measure_case, untrained
from renalseg.config import STAGES, preset
from renalseg.image.intensity import normalise
from renalseg.predict.segmenter import Segmenter


@torch.inference_mode()
def slide(segmenter: Segmenter, case: str, networks: Sequence[torch.nn.Module]) -> float:
    """Seconds of the two fine ``networks`` over the whole CT, with the mirror along z."""
    config, runtime = segmenter.config, segmenter.runtime
    hu = torch.from_numpy(draw_ct(*CASES[case]).array)
    image = normalise(hu, config.intensity)[None, None].to(runtime.device)
    window = (min(config.fine.window, image.shape[2]), *config.fine.in_plane)
    inferer = SlidingWindowInferer(roi_size=window, sw_batch_size=1, overlap=0.25)

    def both(network: torch.nn.Module, part: torch.Tensor) -> torch.Tensor:
        pair = torch.cat((part, part.flip(2))).contiguous(memory_format=runtime.memory_format)
        with runtime.autocast():
            straight, mirrored = network(pair).float().softmax(1)
        return (straight + mirrored.flip(1))[None] / 2

    runtime.synchronise()
    started = time.perf_counter()
    for each in networks:
        inferer(image, lambda part, n=each: both(n, part))
    runtime.synchronise()
    return time.perf_counter() - started


def peer_seconds(python: str, script: str, case: str, device: str) -> float:
    """Seconds of a case, as the peer's own script measures them."""
    slices, spacing = CASES[case]
    size = [slices, IN_PLANE, IN_PLANE, "--spacing", spacing, PIXEL_MM, PIXEL_MM, "--device", device]
    command = [python, script, "--shape", *map(str, size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout)["case_s_no_mirror"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--case", choices=list(CASES), default="median")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--peer", nargs=2, metavar=("PYTHON", "SCRIPT"))
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        segmenter = Segmenter(untrained(preset(a.preset), Path(folder)))
        ours = measure_case(segmenter, a.case, a.repeats)
        print(as_markdown([ours]))
        weights = segmenter.weights[0]
        plain = [segmenter.runtime.place(weights.network(stage)).eval() for stage in STAGES[1:]]
        kinds = {"networks as trained": plain}
        if segmenter.runtime.is_host:
            kinds["our slab-by-slab copies"] = [segmenter.models.kidney[0], segmenter.models.lesion[0]]
        for name, networks in kinds.items():
            theirs = median(slide(segmenter, a.case, networks) for _ in range(a.repeats))
            ratio = theirs / ours.wall_s
            print(f"MONAI SlidingWindowInferer, whole volume, {name}: {theirs:.1f} s; ratio {ratio:.1f}", flush=True)
    if a.peer:
        seconds = peer_seconds(*a.peer, a.case, str(segmenter.runtime.device))
        print(f"{Path(a.peer[1]).name}: {seconds:.1f} s; ratio {seconds / ours.wall_s:.1f}")


if __name__ == "__main__":
    main()
