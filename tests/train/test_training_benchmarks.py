"""The scripts of ``benchmarks/`` that train, whole, on networks and phantoms that take seconds."""

import json
import sys

import pytest

from renalseg.config import STAGES


@pytest.fixture
def small(benchmark_script, make_config, write_dataset, tmp_path, monkeypatch, run):
    """Loads learning.py, and a script that uses it, on two training phantoms and one test phantom."""

    def load(name, *arguments):
        maps = write_dataset(tmp_path / "maps", 6)
        everything = ["--labels", maps, "--work", tmp_path / "work", *arguments]
        script = benchmark_script(name, *everything)
        there = script.train_stage.__globals__  # of learning.py
        for key, value in {"TRAIN": 2, "TEST": 1}.items():
            monkeypatch.setitem(there, key, value)
        for module in (there, vars(script)):
            monkeypatch.setitem(module, "preset", lambda _: make_config(epochs=1))

        def in_this_process(command, check, env):
            assert check
            assert env["OMP_NUM_THREADS"] == "1"
            start = len(command) - command[::-1].index("-m")
            assert command[start] == "renalseg"
            own = sys.argv
            assert run(*command[start + 1 :])[0] == 0
            monkeypatch.setattr("sys.argv", own)

        monkeypatch.setattr(there["subprocess"], "run", in_this_process)
        return script

    return load


def test_learning_trains_and_scores_and_does_nothing_twice(small, tmp_path, monkeypatch, capsys):
    script = small("learning.py", "--minutes", "0.001")
    script.main()
    work = tmp_path / "work"
    result = json.loads((work / "result.json").read_text())
    assert {f"epochs_{stage}" for stage in STAGES} <= result.keys()
    assert 0 < result["minutes"] < result["wall_minutes"]
    assert "| dice_kidney | dice_masses | dice_tumor |" in (work / "learning.md").read_text()
    assert (work / "learning.png").stat().st_size > 10000
    monkeypatch.setattr(script.subprocess, "run", lambda *_, **__: pytest.fail("trained again"))
    script.main()


def test_ablations_leave_out_one_trick_at_a_time(small, tmp_path, capsys):
    small("ablations.py", "--minutes", "0.001", "--tests", "1", "--variants", "no mixup", "as the preset").main()
    table = (tmp_path / "work" / "ablations" / "ablations.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == [
        "all tricks",
        "no mixup",
        "as the preset",
    ]
    for name, mixup in (("all-tricks", 0.2), ("no-mixup", 0.0)):
        text = (tmp_path / "work" / "ablations" / f"{name}-lesion.yaml").read_text()
        assert text.count(f"mixup_probability: {mixup}") >= 1
    assert not (tmp_path / "work" / "ablations" / "as-the-preset").exists()  # the one that learning.py trains


@pytest.mark.slow
def test_presets_are_trained_alike_scored_and_counted(small, tmp_path, monkeypatch, capsys):
    script = small("presets.py", "--minutes", "0.001", "--tests", "1", "--presets", "light", "fast")
    script.main()
    (folder,) = (tmp_path / "work").glob("presets-*")
    results = [json.loads((folder / name / "result-1.json").read_text()) for name in ("light", "fast")]
    for row in results:
        assert set(script.COLUMNS) <= row.keys()
        assert row["tflop"] > 0
        assert row["seconds"] > 0
        assert row["minutes"] > 0
    assert results[0]["tflop"] == results[1]["tflop"]  # one configuration stands for both here
    table = (folder / "presets.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == ["light", "fast"]
    trained = script.train
    monkeypatch.setattr(script, "train", lambda *_: pytest.fail("trained again"))
    script.main()
    seen = []
    monkeypatch.setattr(script, "train", lambda *arguments: seen.append(arguments[-1]) or trained(*arguments))
    monkeypatch.setattr("sys.argv", [*sys.argv, "--tests", "2"])  # other cases: what was scored counts for nothing
    script.main()
    assert len(seen) == 2


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # one of the readers that MONAI tries
def test_ours_takes_turns_with_monai(benchmark_script, make_config, dataset, monkeypatch, capsys):
    script = benchmark_script("loader_vs_monai.py", "--data", dataset, "--samples", "2")
    monkeypatch.setattr(script, "preset", lambda _: make_config())
    script.main()
    printed = capsys.readouterr().out
    for route in ("renalseg", "MONAI"):
        assert f"| {route} |" in printed
