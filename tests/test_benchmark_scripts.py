"""The scripts of ``benchmarks/`` that measure prediction, whole and on the smallest cases."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from renalseg.benchmark import drawn, measure
from renalseg.core.volume import Volume
from renalseg.io.nifti import write_nifti
from renalseg.model.runtime import choose


@pytest.fixture
def dataset(tmp_path):
    """Two cases in KiTS23 layout: kidneys, a tumor and a cyst that thresholds at 100, 200 and 300 HU tell."""
    labels = np.zeros((12, 16, 32), np.uint8)
    labels[3:9, 5:11, 4:10] = labels[2:10, 4:10, 21:28] = 1
    labels[4:7, 4:7, 3:6] = 2
    labels[5:7, 5:7, 22:24] = 3
    for number, shift in enumerate((0, 1)):
        case = tmp_path / "dataset" / f"case_{number:05d}"
        case.mkdir(parents=True)
        moved = np.roll(labels, shift, 2)
        for name, array in (("imaging", np.array([0, 150, 250, 350], np.int16)[moved]), ("segmentation", moved)):
            write_nifti(Volume.from_array(array, (5.0, 5.0, 5.0), case.name), case / f"{name}.nii.gz")
    return tmp_path / "dataset"


def test_fast_paths_are_held_against_the_reference(benchmark_script, dataset, small_weights, tmp_path, capsys):
    arguments = ["--dataset", dataset, "--cases", 2, "--weights", small_weights, "--out", tmp_path / "rows.json"]
    benchmark_script("fast_paths.py", *arguments).main()
    printed = capsys.readouterr().out
    for name in ("windows without kidney left out", "that and slab by slab: the default"):
        assert f"| {name} | 2 | 100.0000% | 100.0000% | 0.00000 | 0.00000 | kept |" in printed
    (rows,) = json.loads((tmp_path / "rows.json").read_text()).values()
    assert list(rows) == ["case_00000", "case_00001"]
    fast = ["windows without kidney left out", "that and slab by slab: the default"]
    assert list(rows["case_00000"]) == fast + ["that in bf16"] * (choose("cpu").precision == "bf16")


def test_a_path_with_other_labels_misses_the_budget(benchmark_script, dataset):
    script = benchmark_script("fast_paths.py")
    case = script.list_cases(dataset)[0]
    truth = script.read_labels(case.segmentation)
    wrong = truth.with_array(np.where(truth.array == 3, np.uint8(2), truth.array))
    rows = {"case": script.compare(case, lambda _: truth, {"right": lambda _: truth, "wrong": lambda _: wrong})}
    right, other = script.table(rows).splitlines()[2:]
    assert right.endswith("| kept |")
    assert other.endswith("| missed |")
    assert rows["case"]["wrong"]["same"] == pytest.approx(1 - (truth.array == 3).sum() / (truth.array > 0).sum())


def test_each_precision_of_a_device_is_a_path_of_its_own(benchmark_script, monkeypatch):
    script = benchmark_script("fast_paths.py")

    class Recorded:
        def __init__(self, *asked):
            self.asked = asked

        def segment(self, ct):
            return SimpleNamespace(labels=(ct, *self.asked))

    monkeypatch.setattr(script, "choose_for_prediction", lambda _: SimpleNamespace(is_host=False))
    monkeypatch.setattr(script, "Segmenter", Recorded)
    found = {name: run("ct") for name, run in script.paths("weights", "cuda").items()}
    assert found == {
        f"cuda, {precision}": ("ct", "weights", "cuda", precision) for precision in ("fp32", "bf16", "fp16")
    }


def test_a_case_beside_monais_sliding_window_and_a_peer(benchmark_script, small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(drawn.CASES, "median", (40, 5.0))
    for module, name, value in (
        (drawn, "IN_PLANE", 96),
        (drawn, "PIXEL_MM", 4.16),
        (measure, "matrix_rate", lambda _: 0.5),
    ):
        monkeypatch.setattr(module, name, value)
    peer = tmp_path / "peer.py"
    peer.write_text("import json, sys\nprint(json.dumps({'case_s_no_mirror': 1000, 'arguments': sys.argv[1:]}))\n")
    script = benchmark_script("inference.py", "--peer", sys.executable, peer)
    monkeypatch.setattr(script, "preset", lambda _: small_config)
    script.main()
    printed = capsys.readouterr().out
    assert "| slices x rows x columns | 40 x 96 x 96 |" in printed
    for name in ("networks as trained", "our slab-by-slab copies"):
        assert f"MONAI SlidingWindowInferer, whole volume, {name}: " in printed
    assert "peer.py: 1000.0 s; ratio " in printed


def test_cold_start_tells_each_step(benchmark_script, dataset, capsys):
    script = benchmark_script("cold_start.py", dataset / "case_00000" / "imaging.nii.gz", "--runs", "1")
    script.main()
    table = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    seconds = {name.strip(): float(value) for name, value in table[1:]}
    assert list(seconds) == [*script.STEPS, "to the first network step"]
    assert seconds.pop("to the first network step") == pytest.approx(sum(seconds.values()), abs=0.05)
    assert seconds["libraries"] > 0.1


def test_each_lesion_is_told_for_itself(benchmark_script):
    script = benchmark_script("accuracy.py")
    truth, found = np.zeros((20, 40, 40), np.uint8), np.zeros((20, 40, 40), np.uint8)
    truth[2:8, 2:8, 2:8] = truth[2:8, 2:8, 20:26] = 2  # 27 ml each
    truth[12:15, 2:5, 2:5] = 3  # 3.4 ml
    found[2:8, 2:8, 2:6] = 2  # two thirds of the first
    found[2:4, 2:8, 20:26] = 3  # a third of the second, and of the wrong kind
    found[12:15, 2:5, 2:5] = 3
    found[15:17, 30:32, 30:32] = 2  # 1 ml of nothing
    volumes = [Volume.from_array(array, (5.0, 5.0, 5.0)) for array in (truth, found)]
    lesions = script.findings(*volumes)
    assert [(x.kind, round(x.mass, 3), round(x.same, 3)) for x in lesions] == [
        ("tumor", 0.667, 0.667),
        ("tumor", 0.333, 0.0),
        ("cyst", 1.0, 1.0),
    ]
    false = [piece for piece in script.findings(*reversed(volumes)) if piece.mass == 0]
    table = script.lesion_table([script.Case(None, {}, lesions, false, 1.0, 1.0)])
    assert table[2:4] == ["| tumor, 5 to 50 ml | 2 | 0.50 | 0.50 | 0.33 |", "| cyst, < 5 ml | 1 | 1.00 | 1.00 | 1.00 |"]
    assert table[-1] == "Called a mass where there is none: 1 pieces of 1.0 ml in all, in 1 of 1 cases."


def test_a_batch_is_timed_beside_one_case_after_another(benchmark_script, dataset, small_weights, capsys):
    image = dataset / "case_00000" / "imaging.nii.gz"
    benchmark_script("batch.py", image, "--cases", "2", "--repeats", "1", "--weights", small_weights).main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[float(cell) for cell in line.split("|")[2:4]] for line in lines[2:4]]
    assert all(seconds > 0 and 0 < share <= 100 for seconds, share in rows)
    assert float(lines[-1].rsplit(" ", 1)[1]) == pytest.approx(rows[0][0] / rows[1][0], abs=0.05 / rows[1][0])


def test_memory_of_a_window_is_counted_without_a_device(benchmark_script, capsys):
    """Of two sums of 4000 bytes each and a product, at most three are alive at once; a view is none of its own."""
    script = benchmark_script("device_memory.py")
    with torch.inference_mode(), script.LiveBytes() as counted:
        a = torch.empty(1000, device="meta")
        b = a + 1
        b = b + 1
        part = b.view(10, 100)
        del a
        assert counted.live == 4000
        c = part * 2
    assert counted.peak == 12000
    assert c.shape == part.shape
    script.main()
    assert "| `fast` | " in capsys.readouterr().out


def test_ours_takes_turns_with_what_compiles():
    """Each in a process of its own, so the script is run as one; what compiles takes long or is not installed."""
    arguments = ["--preset", "tiny", "--slices", "48", "--repeats", "2", "--without", "torch.compile", "OpenVINO"]
    script = Path(__file__).parents[1] / "benchmarks" / "compilers.py"
    ran = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    reference, ours = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran.stdout.splitlines()[2:]]
    assert (reference[0], reference[-1]) == ("training code, fp32", "100.0000 %")
    assert ours[0] == "renalseg, slab by slab"
    assert 99.9 < float(ours[-1].removesuffix(" %")) <= 100
    assert all(float(cell) > 0 for cell in ours[1:-1])
