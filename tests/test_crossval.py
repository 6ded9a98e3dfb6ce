"""``renalseg.crossval``: what a whole run leaves, that it goes on from anywhere, and what it refuses."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from renalseg.batch import run as batch_run
from renalseg.cli import main
from renalseg.config import STAGES, Preparation
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.core.volume import Volume
from renalseg.crossval import Plan, Reports, cross_validate
from renalseg.io.files import file_sha256, write_json
from renalseg.io.kits import fold_split, read_labels
from renalseg.io.nifti import write_nifti
from renalseg.io.read import read_volume
from renalseg.model.checkpoint import open_weights
from renalseg.report import figures
from renalseg.train.cache import GRIDS, prepare
from renalseg.train.index import write_index
from renalseg.train.parallel import World
from renalseg.train.run import Request, run_training

CASES = [f"case_{i:05d}" for i in range(10)]
FOLDS = (0, 1)
HELD_OUT = {fold: fold_split(CASES, fold)[1] for fold in FOLDS}
SPACING_MM = (5.0, 5.0, 5.0)


def write_case(folder, seed):
    """Two bright kidneys in fat, a tumor in one of them."""
    generator = np.random.default_rng(seed)
    z, y, x = np.ogrid[:12, :24, :32]
    labels = np.zeros((12, 24, 32), np.uint8)
    for side in (9, 23):
        labels[((z - 6) / 4) ** 2 + ((y - 12) / 5) ** 2 + ((x - side) / 5) ** 2 < 1] = 1
    labels[4:8, 10:14, 8:11] = 2
    hu = np.array([-100, 150, 250, 10])[labels] + generator.normal(0, 5, labels.shape)
    folder.mkdir(parents=True)
    write_nifti(Volume.from_array(hu.astype(np.int16), SPACING_MM), folder / "imaging.nii.gz")
    write_nifti(Volume.from_array(labels, SPACING_MM), folder / "segmentation.nii.gz")


def draw(_ct, _labels, path, **_):
    """In place of the real picture, which takes most of a small case's time."""
    path.write_bytes(b"picture")


def compare(ct, predicted, truth):
    """In place of the real picture of a worst case: what it would show."""
    np.testing.assert_array_equal(ct.affine, truth.affine)
    np.testing.assert_array_equal(predicted.affine, truth.affine)
    true, found = (hashlib.sha256(labels.array.astype(np.uint8).tobytes()).hexdigest() for labels in (truth, predicted))
    return f"{ct.name} {true} {found}".encode()


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    monkeypatch.setattr(figures, "overlay", draw)
    monkeypatch.setattr("renalseg.crossval.run.example_png", compare)
    monkeypatch.setattr("renalseg.report.training_page.example_png", lambda *_: b"")
    monkeypatch.setattr("renalseg.report.training_page.description", lambda _: "a case")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kits") / "dataset"
    for seed, case in enumerate(CASES):
        write_case(folder / case, seed)
    return folder


@pytest.fixture(scope="module")
def make_plan(dataset, small_config):
    def make(out, data=dataset, config=small_config, folds=FOLDS):
        return Plan(data, out, config, folds, device="cpu", precision="fp32", validation_cases=1)

    return make


@pytest.fixture(scope="module")
def finished(make_plan, tmp_path_factory):
    """A run of two folds that is done; not to be changed."""
    out = tmp_path_factory.mktemp("crossval") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "overlay", draw)
        patch.setattr("renalseg.crossval.run.example_png", compare)
        said, progress = [], []
        result = cross_validate(make_plan(out), Reports(said.append, lambda *step: progress.append(step)))
    return out, result, said, progress


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run, to be damaged."""
    return shutil.copytree(finished[0], tmp_path / "out")


def times(out, *kinds):
    """Time of writing of each file whose path holds one of ``kinds``."""
    files = [p for p in out.rglob("*") if p.is_file()]
    return {
        p.relative_to(out).as_posix(): p.stat().st_mtime_ns
        for p in files
        if any(kind in p.as_posix() for kind in kinds)
    }


WORK = (".safetensors", "/predictions/", "/evaluation/fold_", "/cache/")


def test_what_a_run_leaves(finished):
    out, result, said, progress = finished
    assert result.failed == {}
    assert [f.fold for f in result.folds] == list(FOLDS)
    for fold in FOLDS:
        assert set(open_weights(out / f"fold_{fold}").files) == {"coarse", "kidney", "lesion"}
        assert (out / f"fold_{fold}" / "lesion" / "report.html").is_file()
        assert not (out / f"fold_{fold}" / "cache").exists()  # one for all
        scores = json.loads((out / "evaluation" / f"fold_{fold}" / "metrics.json").read_text())
        assert [c["case_id"] for c in scores["cases"]] == HELD_OUT[fold]
    predicted = sorted(HELD_OUT[0] + HELD_OUT[1])
    assert {p.name for p in (out / "predictions").iterdir()} == {
        f"{case}{suffix}" for case in predicted for suffix in (".nii.gz", ".json", ".png")
    }
    rows = (out / "evaluation" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["caseID", *predicted, "average"]
    assert said[0] == "fold 0: coarse begins"
    whats = list(dict.fromkeys(step[0] for step in progress))
    assert whats[:2] == ["preparing", "fold 0: training coarse"]
    assert "fold 1: evaluating" in whats
    assert progress[-1][1:] == (len(HELD_OUT[1]),) * 2
    assert not list(out.rglob("*.tmp-*"))


def test_each_case_is_predicted_by_the_weights_that_did_not_see_it(finished):
    out = finished[0]
    for fold in FOLDS:
        weights = open_weights(out / f"fold_{fold}")
        assert {e["trained_on"]["fold"] for e in weights.manifest["stages"].values()} == {fold}
        assert weights.manifest["stages"]["lesion"]["trained_on"]["cases"] == 8
        for case in HELD_OUT[fold]:
            record = json.loads((out / "predictions" / f"{case}.json").read_text())
            assert record["weights_sha256"] == weights.sha256


def test_the_table(finished):
    out = finished[0]
    text = (out / "crossval.md").read_text()
    start = text.index("| Cases |")
    rows = text[start : text.index("\n\n", start)].splitlines()
    assert [row.split(" | ")[0].lstrip("| ") for row in rows[2:]] == [
        "fold 0 (2)",
        "fold 1 (2)",
        "**all folds (4)**",
        "paper, fold 0",
        "paper, test",
    ]
    assert {row.count("|") for row in rows} == {10}
    assert re.fullmatch(r"\d\.\d{4} \(\d\.\d{4} to \d\.\d{4}\)", rows[4].split(" | ")[1])
    assert "0.9661" in rows[5]
    assert "20.65" in rows[6]
    assert "3525 (device)" in rows[6]
    assert rows[4].rstrip(" |").endswith("(host)")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(pictures) == 4
    assert all((out / picture).is_file() for picture in pictures)


def test_truth_and_prediction_of_the_worst_cases_are_shown(copy, dataset, make_plan):
    shown = {path.stem: path for path in (copy / "worst").iterdir()}
    assert shown.keys() == {*HELD_OUT[0], *HELD_OUT[1]}
    for case, path in shown.items():
        truth, found = (
            read_labels(file)
            for file in (dataset / case / "segmentation.nii.gz", copy / "predictions" / f"{case}.nii.gz")
        )
        assert path.read_bytes() == compare(replace(truth, name=case), found, truth)
    (copy / "worst" / "case_99999.png").write_bytes(b"of a case that is no longer among the worst")
    cross_validate(make_plan(copy))
    assert {path.stem for path in (copy / "worst").iterdir()} == shown.keys()


def test_the_json_says_the_same(finished):
    out = finished[0]
    data = json.loads((out / "crossval.json").read_text())
    rows = np.array(
        [line.split(",")[1:] for line in (out / "evaluation" / "metrics.csv").read_text().splitlines()[1:-1]], float
    )
    assert data["all"]["mean"]["dice"]["kidney"] == pytest.approx(rows[:, 0].mean(), abs=1e-7)
    low, high = (data["all"]["mean_interval"][end]["dice"]["kidney"] for end in ("lower", "upper"))
    assert low <= data["all"]["mean"]["dice"]["kidney"] <= high
    assert data["all"]["seconds"]["median"] <= data["all"]["seconds"]["max"]
    assert data["all"]["peak_memory_mb"]["host"] > 0
    assert data["folds"].keys() == {"0", "1"}
    assert data["worst"][0]["fold"] in FOLDS


def test_started_again_nothing_is_done_again(copy, make_plan):
    before, said = times(copy, *WORK), []
    result = cross_validate(make_plan(copy), Reports(said.append))
    assert times(copy, *WORK) == before
    assert len(result.folds) == 2
    assert said[:4] == [
        "fold 0: trained already: coarse, kidney, lesion",
        "fold 1: trained already: coarse, kidney, lesion",
        "fold 0: 2 of 2 held-out cases are segmented already",
        "fold 0: scored already",
    ]


def test_a_fold_without_its_lesion_stage_goes_on_there(copy, make_plan):
    fold = copy / "fold_0"
    shutil.rmtree(fold / "lesion")
    (fold / "lesion.safetensors").unlink()
    manifest = json.loads((fold / "manifest.json").read_text())
    del manifest["stages"]["lesion"]
    write_json(manifest, fold / "manifest.json")
    kept = ("coarse", "kidney", "/fold_1/", *(f"predictions/{case}" for case in HELD_OUT[1]))
    before, said = times(copy, *kept), []
    result = cross_validate(make_plan(copy), Reports(said.append))
    after = times(copy, *kept)
    assert {k: v for k, v in after.items() if k in before} == before
    assert "fold 0: lesion begins" in said
    assert "fold 1: 2 of 2 held-out cases are segmented already" in said
    assert set(open_weights(fold).files) == {"coarse", "kidney", "lesion"}
    assert len(result.folds) == 2


def test_interrupted_among_the_predictions_it_goes_on_there(copy, make_plan, monkeypatch):
    shutil.rmtree(copy / "predictions")
    calls = []

    def interrupt(*arguments, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        draw(*arguments, **more)

    monkeypatch.setattr(figures, "overlay", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(make_plan(copy))
    first, second = HELD_OUT[0]
    assert {p.name.split(".")[0] for p in (copy / "predictions").iterdir()} == {first}
    monkeypatch.setattr(figures, "overlay", draw)
    before, said = times(copy, f"predictions/{first}"), []
    cross_validate(make_plan(copy), Reports(said.append))
    assert times(copy, f"predictions/{first}") == before
    assert "fold 0: 1 of 2 held-out cases are segmented already" in said
    assert (copy / "predictions" / f"{second}.json").is_file()


def test_interrupted_in_training_it_goes_on_there(make_plan, tmp_path):
    def interrupt(what, done, _):
        if what == "fold 0: training kidney" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cross_validate(make_plan(tmp_path / "out", folds=(0,)), Reports(on_progress=interrupt))
    before, said = times(tmp_path / "out", "/coarse", ".npy"), []
    cross_validate(make_plan(tmp_path / "out", folds=(0,)), Reports(said.append))
    assert said[:3] == ["fold 0: trained already: coarse", "fold 0: kidney begins", "fold 0: lesion begins"]
    assert times(tmp_path / "out", "/coarse", ".npy") == before


KILLED = """
import os, signal, sys
import numpy as np
from renalseg.cli import main
from renalseg.report import figures
from renalseg.train import loop

place, count = sys.argv.pop(1), 0

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def step(run, *more):
    global count
    count += run.stage == "kidney"
    if count == 3:
        kill()
    return whole_step(run, *more)

def save(path, array):
    global count
    count += 1
    whole_save(path, array[: len(array) // (1 + (count == 6))])
    if count == 6:
        kill()

whole_step, whole_save = loop._step, np.save
if __name__ == "__main__":
    if place == "preparing":
        np.save = save
    elif place == "training":
        loop._step = step
    else:
        figures.overlay = kill
    main()
"""
"""A program that does as ``renalseg`` and kills itself at the place of its first argument."""


@pytest.mark.parametrize("place", ["preparing", "training", "predicting"])
def test_killed_it_goes_on_and_ends_as_if_nothing_had_been(place, finished, dataset, make_plan, tmp_path):
    script, plan = tmp_path / "killed.py", make_plan(tmp_path / "out", folds=(0,))
    script.write_text(KILLED)
    (tmp_path / "config.yaml").write_text(plan.config.to_yaml())
    options = ["--data", dataset, "--out", plan.out, "--config", tmp_path / "config.yaml", "--folds", 0]
    options += ["--device", "cpu", "--precision", "fp32", "--validation-cases", 1]
    command = [sys.executable, script, place, "crossval", *options]
    died = subprocess.run([str(word) for word in command], check=False, stdout=subprocess.DEVNULL)
    assert died.returncode == -signal.SIGKILL
    begun = {"preparing": set(), "training": {"coarse"}, "predicting": set(STAGES)}[place]
    assert {path.parent.name for path in plan.out.glob("fold_0/*/last.safetensors")} == begun
    (found,) = cross_validate(plan).folds
    assert not list(plan.out.rglob("*.tmp-*"))
    expected = finished[1].folds[0]
    assert [(case.case_id, case.dice) for case in found.scores.cases] == [
        (case.case_id, case.dice) for case in expected.scores.cases
    ]
    for stage in STAGES:
        one, other = (load_file(out / "fold_0" / f"{stage}.safetensors") for out in (finished[0], plan.out))
        assert all(torch.equal(other[key], value) for key, value in one.items())


def test_determinism_is_asked_of_training(make_plan, tmp_path, monkeypatch):
    asked = []

    def note(request, *_):
        asked.append(request.deterministic)
        raise KeyboardInterrupt

    monkeypatch.setattr("renalseg.crossval.run.run_training", note)
    for wanted in (True, False):
        with pytest.raises(KeyboardInterrupt):
            cross_validate(replace(make_plan(tmp_path / str(wanted)), deterministic=wanted))
    assert asked == [True, False]


def test_validation_goes_through_the_stages_that_are_trained(make_plan, tmp_path, monkeypatch):
    asked = []

    def note(request, *more):
        asked.append((request.stage, request.cascade))
        if request.stage == "lesion":
            raise KeyboardInterrupt
        return run_training(request, *more)

    monkeypatch.setattr("renalseg.crossval.run.run_training", note)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(make_plan(tmp_path))
    assert asked == [("coarse", None), ("kidney", tmp_path / "fold_0"), ("lesion", tmp_path / "fold_0")]


def test_a_case_that_fails_costs_its_fold_the_scores_and_no_other(copy, make_plan, monkeypatch):
    lost = HELD_OUT[0][1]
    (copy / "predictions" / f"{lost}.json").unlink()

    def refuse(path):
        raise InputError(f"{path} is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(batch_run, "read_volume", refuse)
        result = cross_validate(make_plan(copy))
    assert set(result.failed) == {lost}
    assert [f.fold for f in result.folds] == [1]
    assert f"Fold 0 has no scores: 1 of 2 cases could not be segmented: {lost}" in (copy / "crossval.md").read_text()
    assert len(cross_validate(make_plan(copy)).folds) == 2


def test_replaced_labels_are_scored_anew(copy, dataset, make_plan, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "dataset")
    shutil.copy(other / CASES[0] / "segmentation.nii.gz", other / HELD_OUT[1][0] / "segmentation.nii.gz")
    said = []
    cross_validate(make_plan(copy, data=other), Reports(said.append))
    assert "fold 0: scored already" in said
    assert "fold 1: scored already" not in said


def test_a_replaced_image_is_segmented_anew(copy, dataset, make_plan, tmp_path):
    other, case = shutil.copytree(dataset, tmp_path / "dataset"), HELD_OUT[1][0]
    ct = read_volume(other / case / "imaging.nii.gz")
    write_nifti(ct.with_array(np.minimum(ct.array, 200)), other / case / "imaging.nii.gz")
    said = []
    cross_validate(make_plan(copy, data=other), Reports(said.append))
    assert "fold 0: 2 of 2 held-out cases are segmented already" in said
    assert "fold 1: 1 of 2 held-out cases are segmented already" in said


def test_predictions_of_another_precision_are_made_anew_where_their_fold_is_asked_for(copy, make_plan):
    for case in HELD_OUT[0] + HELD_OUT[1]:
        record = json.loads((copy / "predictions" / f"{case}.json").read_text())
        record["made_from"]["precision"] = "bf16"
        write_json(record, copy / "predictions" / f"{case}.json")
    said = []
    result = cross_validate(make_plan(copy, folds=(0,)), Reports(said.append))
    assert "fold 0: 2 of 2 held-out cases are segmented already" not in said
    again = json.loads((copy / "predictions" / f"{HELD_OUT[0][0]}.json").read_text())
    assert again["made_from"]["precision"] == "fp32"
    assert [f.fold for f in result.folds] == [0]  # the other fold's scores were those of other records
    assert "Fold 1 has no scores: it is not finished" in (copy / "crossval.md").read_text()


def test_scores_of_before_do_not_stand_for_a_fold_that_fails(copy, make_plan, monkeypatch):
    """Records of another precision stay where they cannot be replaced."""
    for case in HELD_OUT[0]:
        record = json.loads((copy / "predictions" / f"{case}.json").read_text())
        record["made_from"]["precision"] = "bf16"
        write_json(record, copy / "predictions" / f"{case}.json")
    cross_validate(make_plan(copy, folds=(1,)))

    def refuse(path):
        raise InputError(f"{path} is damaged")

    monkeypatch.setattr(batch_run, "read_volume", refuse)
    assert [f.fold for f in cross_validate(make_plan(copy, folds=(0,))).folds] == [1]
    assert "Fold 0 has no scores: 2 of 2 cases could not be segmented" in (copy / "crossval.md").read_text()
    assert rows(copy) == ["fold 1 (2)"]


def test_cases_without_an_image_are_named(dataset, make_plan, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "dataset")
    lost = HELD_OUT[1][0]
    (other / lost / "imaging.nii.gz").unlink()
    said = []
    cross_validate(make_plan(tmp_path / "out", data=other, folds=(1,)), Reports(said.append))
    assert f"1 cases with labels have no image and are left out: {lost}" in said
    table = (tmp_path / "out" / "crossval.md").read_text()
    assert f"- Left out, since they have labels and no image: {lost}" in table
    assert json.loads((tmp_path / "out" / "crossval.json").read_text())["left_out"] == [lost]
    assert rows(tmp_path / "out") == ["fold 1 (1)"]


def test_a_cache_that_lacks_a_case_whose_image_came_later(dataset, small_config, make_plan, tmp_path):
    other, cache = shutil.copytree(dataset, tmp_path / "dataset"), tmp_path / "cache"
    image = other / CASES[2] / "imaging.nii.gz"
    image.unlink()
    write_index(other, cache, small_config, prepare(other, cache, GRIDS, small_config, CASES[:2] + CASES[3:]))
    shutil.copy(dataset / CASES[2] / "imaging.nii.gz", image)
    with pytest.raises(InputError, match=f"lacks {CASES[2]} \\(1 in all\\), whose image came later"):
        cross_validate(make_plan(tmp_path / "out", data=cache))
    assert not (tmp_path / "out").exists()


def test_from_a_cache(dataset, small_config, make_plan, tmp_path):
    cache = tmp_path / "cache"
    write_index(dataset, cache, small_config, prepare(dataset, cache, GRIDS, small_config, CASES))
    result = cross_validate(make_plan(tmp_path / "out", data=cache, folds=(4,)))
    assert [f.fold for f in result.folds] == [4]
    assert not (tmp_path / "out" / "cache").exists()
    assert "**all folds" not in (tmp_path / "out" / "crossval.md").read_text()


def test_regions_from_each_folds_own_coarse_network(small_config, make_plan, tmp_path):
    preparation = small_config.preparation.model_copy(update={"roi": "coarse"})
    config = small_config.model_copy(update={"preparation": preparation})
    result = cross_validate(make_plan(tmp_path / "out", config=config, folds=(2,)))
    assert [f.fold for f in result.folds] == [2]
    assert (tmp_path / "out" / "fold_2" / "cache" / "fine").is_dir()
    assert not (tmp_path / "out" / "cache").exists()


def with_epochs(config, epochs):
    training = {k: v.model_copy(update={"epochs": epochs, "validate_every": 1}) for k, v in config.training.items()}
    return config.model_copy(update={"training": training})


def holds_last(fold, stage):
    """Whether a fold's folder holds the weights of the last epoch of a stage."""
    last, kept = load_file(fold / stage / "last.safetensors"), load_file(fold / f"{stage}.safetensors")
    return all(torch.equal(value, last[f"network.{key}"]) for key, value in kept.items())


def test_no_held_out_case_chooses_the_weights_that_it_is_scored_on(small_config, make_plan, tmp_path, monkeypatch):
    """Scores fall with every epoch; a training by hand keeps the best weights, and ``crossval`` puts the last there."""
    scores = iter(range(100, 0, -1))
    monkeypatch.setattr("renalseg.train.run.make_validator", lambda *_, **__: lambda _: {"score": float(next(scores))})
    plan = make_plan(tmp_path / "out", config=with_epochs(small_config, 2), folds=(0,))
    fold = plan.weights(0)
    by_hand = Request("coarse", plan.data, fold, plan.config, fold=0, device="cpu", precision="fp32")
    run_training(by_hand)
    assert not holds_last(fold, "coarse")
    said = []
    cross_validate(plan, Reports(said.append))
    assert said[:2] == ["fold 0: coarse goes on", "fold 0: kidney begins"]
    assert all(holds_last(fold, stage) for stage in STAGES)
    weights = open_weights(fold)
    assert {e["trained_on"]["epoch"] for e in weights.manifest["stages"].values()} == {2}
    record = json.loads((plan.out / "predictions" / f"{HELD_OUT[0][0]}.json").read_text())
    assert record["weights_sha256"] == weights.sha256
    assert "the weights of their last epoch, which no held-out case had a say in" in (
        plan.out / "crossval.md"
    ).read_text().replace("\n", " ")


def test_a_lesion_network_that_began_with_a_chosen_kidney_network_is_refused(
    small_config, make_plan, tmp_path, monkeypatch
):
    """Trained by hand, the kidney stage keeps the epoch that held-out cases like best; the lesion stage starts so."""
    scores = iter(range(100, 0, -1))
    monkeypatch.setattr("renalseg.train.run.make_validator", lambda *_, **__: lambda _: {"score": float(next(scores))})
    config = with_epochs(small_config, 2)
    lesion = config.training["lesion"].model_copy(update={"start_from": "kidney"})
    config = config.model_copy(update={"training": config.training | {"lesion": lesion}})
    plan = make_plan(tmp_path / "out", config=config, folds=(0,))
    for stage, keep in (("kidney", "best"), ("lesion", "last")):
        by_hand = Request(stage, plan.data, plan.weights(0), config, fold=0, device="cpu", precision="fp32", keep=keep)
        run_training(by_hand)
    with pytest.raises(WeightsError, match="held-out cases may have chosen; delete the folder"):
        cross_validate(plan)
    shutil.rmtree(plan.weights(0))
    assert [f.fold for f in cross_validate(plan).folds] == [0]
    assert [f.fold for f in cross_validate(plan).folds] == [0]  # what it began itself, it goes on with


def test_killed_between_weights_and_manifest_the_last_weights_are_put_back(copy, make_plan):
    path = copy / "fold_0" / "lesion.safetensors"
    before = load_file(path)
    save_file({k: v + 1 for k, v in before.items()}, path)
    said = []
    cross_validate(make_plan(copy), Reports(said.append))
    assert "fold 0: lesion goes on" in said
    assert all(torch.equal(value, before[key]) for key, value in load_file(path).items())
    assert "fold 0: 2 of 2 held-out cases are segmented already" in said


def test_a_run_of_a_version_with_fewer_settings_goes_on(copy, make_plan):
    """Every configuration in the folder lacks ``stem``, and every hash is that of the configuration without it."""
    data = yaml.safe_load((copy / "config.yaml").read_text())
    for network in (data["coarse"]["network"], data["fine"]["kidney"], data["fine"]["lesion"]):
        del network["stem"]
    sha256 = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    for path in copy.rglob("config.yaml"):
        path.write_text(yaml.safe_dump(data, sort_keys=False))
    for path in copy.rglob("last.safetensors"):
        with safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["state"])
        meta["progress"]["config_sha256"] = sha256
        save_file(load_file(path), path, {"state": json.dumps(meta)})
    notes = {p: json.loads(p.read_text()) for p in [copy / "inputs.json", *(copy / "predictions").glob("*.json")]}
    for path, note in notes.items():
        write_json(note | {"config_sha256": sha256}, path)
    for path in copy.rglob("manifest.json"):
        write_json(json.loads(path.read_text()) | {"config_sha256": file_sha256(path.parent / "config.yaml")}, path)
    before, said = times(copy, ".safetensors", "/predictions/", "inputs.json", "config.yaml"), []
    assert len(cross_validate(make_plan(copy), Reports(said.append)).folds) == 2
    assert times(copy, ".safetensors", "/predictions/", "inputs.json", "config.yaml") == before
    assert said[:3] == [
        "fold 0: trained already: coarse, kidney, lesion",
        "fold 1: trained already: coarse, kidney, lesion",
        "fold 0: 2 of 2 held-out cases are segmented already",
    ]


def rows(out):
    """The first cells of the table's rows of folds."""
    return re.findall(r"^\| (\**(?:fold|all)[^|]*?) \|", (out / "crossval.md").read_text(), re.MULTILINE)


def test_folds_of_other_runs_stay_in_the_table(copy, make_plan):
    assert [f.fold for f in cross_validate(make_plan(copy, folds=(2,))).folds] == [0, 1, 2]
    assert rows(copy) == ["fold 0 (2)", "fold 1 (2)", "fold 2 (2)", "**all folds (6)**"]
    lost = copy / "predictions" / f"{HELD_OUT[0][0]}.png"
    lost.unlink()
    assert [f.fold for f in cross_validate(make_plan(copy, folds=(2,))).folds] == [1, 2]
    assert "- Fold 0 has no scores: it is not finished; go on with --folds 0" in (copy / "crossval.md").read_text()
    (copy / "fold_1" / "kidney" / "last.safetensors").write_bytes(b"nothing")
    assert [f.fold for f in cross_validate(make_plan(copy, folds=(2,))).folds] == [2]
    assert re.search(r"- Fold 1 has no scores: .*last\.safetensors is damaged", (copy / "crossval.md").read_text())


def test_a_fold_that_another_machine_finishes_meanwhile_is_in_the_table(copy, make_plan, monkeypatch):
    """It ends while this one trains, or even while this one writes the table."""
    from renalseg.crossval import run as work

    other = copy / "evaluation" / "fold_1" / "scored.json"
    scored, write = other.read_text(), work._write
    for moment in ("score", "_write"):
        other.unlink()
        step = getattr(work, moment)

        def meanwhile(*arguments, step=step):
            done = step(*arguments)
            other.write_text(scored)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(work, moment, meanwhile)
            assert [f.fold for f in cross_validate(make_plan(copy, folds=(0,))).folds] == [0, 1]
        assert rows(copy) == ["fold 0 (2)", "fold 1 (2)", "**all folds (4)**"]
    assert work._write is write


def test_where_every_fold_fails_the_old_table_does_not_look_current(copy, make_plan, monkeypatch):
    shutil.rmtree(copy / "predictions")

    def refuse(path):
        raise InputError(f"{path} is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(batch_run, "read_volume", refuse)
        assert cross_validate(make_plan(copy)).folds == []
    text = (copy / "crossval.md").read_text()
    assert "no fold has scores" in text
    assert "| Cases |" not in text
    assert f"- Fold 1 has no scores: 2 of 2 cases could not be segmented: {', '.join(HELD_OUT[1])}" in text
    data = json.loads((copy / "crossval.json").read_text())
    assert (data["folds"], data["all"], data["worst"]) == ({}, None, [])
    assert set(data["folds_without_scores"]) == {"0", "1"}
    assert not list((copy / "evaluation").glob("metrics.*"))
    assert len(cross_validate(make_plan(copy)).folds) == 2
    assert rows(copy) == ["fold 0 (2)", "fold 1 (2)", "**all folds (4)**"]


# What is refused ------------------------------------------------------------------------------------------------------


def test_another_configuration(copy, small_config, make_plan):
    changed = small_config.model_copy(update={"name": "other"})
    before = times(copy, "")
    with pytest.raises(ConfigError, match=r"begun with another configuration; go on with --config .*config\.yaml"):
        cross_validate(make_plan(copy, config=changed))
    (copy / "inputs.json").unlink()  # as if the folds had been trained by hand
    with pytest.raises(ConfigError, match=r"fold_0/coarse was trained with another configuration"):
        cross_validate(make_plan(copy, config=changed))
    after = times(copy, "")
    assert {k for k in before if after.get(k) != before[k]} <= {"inputs.json", "config.yaml"}


def test_another_dataset(copy, dataset, make_plan, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "dataset")
    shutil.rmtree(other / CASES[3])
    with pytest.raises(ConfigError, match="begun with 10 cases of dataset, now there are 9 of dataset"):
        cross_validate(make_plan(copy, data=other))


def test_weights_of_another_fold(copy, make_plan):
    shutil.rmtree(copy / "fold_1")
    shutil.copytree(copy / "fold_0", copy / "fold_1")
    with pytest.raises(ConfigError, match="trained for fold 0, not 1"):
        cross_validate(make_plan(copy))


@pytest.mark.parametrize("damage", ["state", "weights"])
def test_damaged_folds(damage, copy, make_plan):
    if damage == "state":
        (copy / "fold_0" / "kidney" / "last.safetensors").write_bytes(b"nothing")
    else:
        (copy / "fold_0" / "lesion.safetensors").unlink()
    with pytest.raises(WeightsError, match="fold_0"):
        cross_validate(make_plan(copy))


def test_a_cache_whose_dataset_is_gone(dataset, small_config, make_plan, tmp_path):
    moved, cache = shutil.copytree(dataset, tmp_path / "moved"), tmp_path / "cache"
    write_index(moved, cache, small_config, prepare(moved, cache, GRIDS, small_config, CASES))
    shutil.rmtree(moved / CASES[0])
    with pytest.raises(InputError, match=f"lacks {CASES[0]}"):
        cross_validate(make_plan(tmp_path / "out", data=cache))
    shutil.rmtree(moved)
    with pytest.raises(InputError, match="bring them back, or give the dataset as --data"):
        cross_validate(make_plan(tmp_path / "out", data=cache))
    assert not (tmp_path / "out").exists()


def test_folds_that_do_not_exist(make_plan, tmp_path):
    with pytest.raises(ConfigError, match="fold 5 of 5"):
        cross_validate(make_plan(tmp_path / "out", folds=(0, 5)))
    assert not (tmp_path / "out").exists()


def test_more_processes_than_a_batch_has_cases(make_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("renalseg.crossval.run.join", lambda device: nullcontext((World(0, 3), device)))
    with pytest.raises(ConfigError, match="3 processes cannot share a batch of 1"):
        cross_validate(make_plan(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_cache_whose_regions_one_network_found_for_all_folds(dataset, small_config, small_weights, tmp_path):
    config = small_config.model_copy(update={"preparation": Preparation(roi="coarse")})
    cache = tmp_path / "cache"
    made = prepare(dataset, cache, GRIDS, config, CASES, coarse_weights=small_weights)
    write_index(dataset, cache, config, made)
    with pytest.raises(ConfigError, match="may have seen cases that a fold holds out; give the dataset as --data"):
        cross_validate(Plan(cache, tmp_path / "out", config, device="cpu"))
    assert not (tmp_path / "out").exists()


# The command ----------------------------------------------------------------------------------------------------------


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["renalseg", "crossval", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "250")
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


def test_the_command(copy, dataset, monkeypatch, capsys):
    fixed = ("--data", dataset, "--out", copy, "--config", copy / "config.yaml", "--device", "cpu")
    assert run(monkeypatch, *fixed, "--precision", "fp32", "--folds", "1,0") == 0
    out = capsys.readouterr().out
    assert "fold 0: trained already: coarse, kidney, lesion" in out
    assert "paper, fold 0" in out
    assert str(copy / "crossval.md") in out.replace("\n", "")
    assert run(monkeypatch, *fixed, "--folds", "one") == 2
    assert "--folds one: give numbers" in capsys.readouterr().err


def test_fold_0_alone_and_later_the_others(dataset, small_config, tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text(small_config.to_yaml())
    out = tmp_path / "out"
    fixed = ("--data", dataset, "--out", out, "--config", tmp_path / "config.yaml", "--device", "cpu")
    assert run(monkeypatch, *fixed, "--validation-cases", "0", "--folds", "0") == 0
    assert rows(out) == ["fold 0 (2)"]
    scores = json.loads((out / "crossval.json").read_text())["folds"]["0"]
    assert run(monkeypatch, *fixed, "--validation-cases", "0", "--folds", "1,2,3,4") == 0
    assert rows(out) == [*(f"fold {fold} (2)" for fold in range(5)), "**all folds (10)**"]
    data = json.loads((out / "crossval.json").read_text())
    assert data["folds"]["0"] == scores
    assert data["all"]["n_cases"] == 10
    csv = (out / "evaluation" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in csv] == ["caseID", *CASES, "average"]
    printed = capsys.readouterr().out
    assert "fold 0: trained already" not in printed  # nothing was asked of it
    assert "all folds (10)" in printed


def test_two_processes_of_torchrun_give_what_one_gives(dataset, small_config, make_plan, tmp_path):
    training = {k: v.model_copy(update={"batch": 2}) for k, v in small_config.training.items()}
    config = small_config.model_copy(update={"training": training})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    one, two = tmp_path / "one", tmp_path / "two"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes below, so that sums have one order
    try:
        cross_validate(make_plan(one, config=config, folds=(0,)))
    finally:
        torch.set_num_threads(threads)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--data", dataset, "--out", two, "--config", tmp_path / "config.yaml", "--device", "cpu"]
    options += ["--precision", "fp32", "--folds", "0", "--validation-cases", "1"]
    command = [*torchrun, "-m", "renalseg", "crossval", *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "250"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fold 0: coarse begins") == 1
    assert done.stdout.count("paper, fold 0") == 1
    for stage in STAGES:
        assert file_sha256(one / "fold_0" / f"{stage}.safetensors") == file_sha256(
            two / "fold_0" / f"{stage}.safetensors"
        )
    for case in HELD_OUT[0]:
        name = f"predictions/{case}.nii.gz"
        np.testing.assert_array_equal(read_volume(one / name).array, read_volume(two / name).array)
    assert (one / "evaluation" / "metrics.csv").read_bytes() == (two / "evaluation" / "metrics.csv").read_bytes()
    assert rows(two) == ["fold 0 (2)"]
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("fold 0: trained already: coarse, kidney, lesion") == 1
    assert again.stdout.count("fold 0: scored already") == 1


def test_the_command_exits_with_1_where_a_case_failed(copy, dataset, monkeypatch, capsys):
    (copy / "predictions" / f"{HELD_OUT[0][0]}.json").unlink()

    def refuse(path):
        raise InputError(f"{path} is damaged")

    monkeypatch.setattr(batch_run, "read_volume", refuse)
    fixed = ("--data", dataset, "--out", copy, "--config", copy / "config.yaml", "--device", "cpu", "--folds", "0,1")
    assert run(monkeypatch, *fixed) == 1
    assert f"failed {HELD_OUT[0][0]}" in capsys.readouterr().err
