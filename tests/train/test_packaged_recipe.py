"""The recipe of the packaged weights, on a label map that renders in a second."""

import importlib.util
import sys
from pathlib import Path

import pytest

from renalseg.config import STAGES
from renalseg.io.kits import fold_split, list_cases
from renalseg.train.index import open_cache

FILE = Path(__file__).parents[2] / "recipes" / "packaged_weights.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("packaged_weights", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["packaged_weights"] = module  # the worker processes find its functions by this name
    spec.loader.exec_module(module)
    yield module
    del sys.modules["packaged_weights"]


@pytest.fixture(scope="module")
def maps(write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("maps"), 6)


def test_fold_0_is_never_rendered(recipe, maps):
    _, held_out = fold_split([case.case_id for case in list_cases(maps)], 0)
    rendered = {job.labels.parent.name for job in recipe.jobs(maps) if job.labels is not None}
    assert held_out
    assert rendered == {case.case_id for case in list_cases(maps)} - set(held_out)


def test_every_kind_comes_early(recipe, maps):
    names = [job.name.split("_")[0] for job in recipe.jobs(maps)[:4]]
    assert sorted(names) == ["drawn", "kits", "none", "small"]


def test_what_it_renders_can_be_trained_on_and_is_not_rendered_again(recipe, maps, make_config, tmp_path, run):
    config, cache, weights = make_config(epochs=1), tmp_path / "cache", tmp_path / "weights"
    recipe.render_all(maps, None, cache, config, first=1, workers=1)
    files = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npy")}
    assert len(files) == 4
    for stage in STAGES:
        assert list(open_cache(cache).cases(stage, config)) == ["kits_case_00000_0"]
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    code, _, err = run("train", "lesion", "--data", cache, "--out", weights, "--config", tmp_path / "config.yaml")
    assert code == 0, err
    assert (weights / "lesion.safetensors").exists()
    recipe.render_all(maps, None, cache, config, first=1, workers=1)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npy")} == files
    wider = config.model_copy(update={"coarse": config.coarse.model_copy(update={"margin_mm": (9.0, 9.0, 9.0)})})
    recipe.render_all(maps, None, cache, wider, first=1, workers=1)
    assert len(list(cache.glob("coarse/*-image.npy"))) == 1  # the margin decides the fine arrays alone
    assert len(list(cache.glob("fine/*-image.npy"))) == 2
