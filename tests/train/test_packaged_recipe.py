"""The recipe of the packaged weights, on a label map that renders in a second."""

import numpy as np
import pytest

from renalseg.config import STAGES
from renalseg.core.volume import Volume
from renalseg.io.kits import fold_split, list_cases
from renalseg.train.index import open_cache


@pytest.fixture
def recipe(load_script):
    return load_script("recipes/packaged_weights.py")


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


def test_what_is_there_is_noted_where_rendering_stops(recipe, maps, make_config, tmp_path, monkeypatch):
    render, config = recipe.render, make_config()

    def interrupted(job, **settings):
        if not job.name.startswith(("kits", "small")):
            raise KeyboardInterrupt
        return render(job, **settings)

    monkeypatch.setattr(recipe, "render", interrupted)
    first = [job for job in recipe.jobs(maps) if job.name.startswith(("kits", "small"))][:2]
    everything = [*first, *(job for job in recipe.jobs(maps) if job not in first)]
    monkeypatch.setattr(recipe, "jobs", lambda _: everything)
    with pytest.raises(KeyboardInterrupt):
        recipe.render_all(maps, None, tmp_path, config, first=None, workers=1)
    cache = open_cache(tmp_path)
    assert {job.name.split("_")[0] for job in first} == {"kits", "small"}
    assert set(cache.cases("coarse", config)) == {job.name for job in first}
    assert list(cache.cases("kidney", config)) == [job.name for job in first if job.name.startswith("kits")]


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


@pytest.mark.parametrize("cut", [0.0, 1.0])
def test_ranges_have_the_kidneys_but_for_those_that_are_cut(cut, recipe, monkeypatch):
    monkeypatch.setattr(recipe, "CUT", cut)
    monkeypatch.setattr(recipe, "WHOLE", 0.0)
    monkeypatch.setattr(recipe, "SPACINGS_MM", (2.0,))
    array = np.zeros((200, 4, 4), np.uint8)
    array[80:130] = 1
    labels = Volume.from_array(array, (2.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    ranges = [recipe.another_range(rng, labels).array[:, 0, 0] for _ in range(40)]
    kept = [int(r.sum()) for r in ranges]
    if not cut:
        assert set(kept) == {50}
    else:
        assert 20 <= min(kept) <= max(kept) <= 46
        assert any(r[0] for r in ranges)
        assert any(r[-1] for r in ranges)
    assert len({len(r) for r in ranges}) > 20
