import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from renalseg.config import STAGES, Config, Preparation
from renalseg.core.errors import ConfigError, InputError, WeightsError
from renalseg.io.kits import list_cases, read_case
from renalseg.model import checkpoint, runtime
from renalseg.model.checkpoint import open_weights
from renalseg.predict.coarse import clean_coarse, coarse_input, coarse_probability
from renalseg.predict.roi import find_box
from renalseg.train import cache as train_cache
from renalseg.train.cache import GRIDS, VERSION, prepare, settings_key
from renalseg.train.index import is_cache, open_cache, write_index
from renalseg.train.prepare import coarse_arrays, fine_arrays

IDS = ["case_00000", "case_00001", "case_00002"]


def changed(config: Config, **coarse) -> Config:
    return config.model_copy(update={"coarse": config.coarse.model_copy(update=coarse)})


def mtimes(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


def test_holds_what_the_arrays_of_each_grid_are(dataset, make_config, tmp_path):
    config, calls = make_config(), []
    made = prepare(dataset, tmp_path, GRIDS, config, IDS[:2], on_case=lambda *call: calls.append(call))
    assert calls == [(IDS[0], 1, 2), (IDS[1], 2, 2)]
    for index, case in enumerate(list_cases(dataset)[:2]):
        ct, labels = read_case(case)
        for grid, arrays in (("coarse", coarse_arrays), ("fine", fine_arrays)):
            prepared = made[grid][index]
            assert prepared.case_id == case.case_id
            for found, expected in zip(prepared.load(), arrays(ct, labels, config), strict=True):
                assert isinstance(found, np.memmap)
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)


def test_files_are_reused_until_source_or_settings_change(dataset, make_config, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(dataset, data)
    config = make_config()
    prepare(data, cache, ["fine"], config, IDS)
    first = mtimes(cache)
    assert len(first) == 6
    prepare(data, cache, ["fine"], make_config(learning_rate=1.0), IDS)
    assert mtimes(cache) == first
    prepare(data, cache, ["fine"], changed(config, margin_mm=(9.0, 9.0, 9.0)), IDS)
    second = mtimes(cache)
    assert len(second) == 12
    assert first.items() <= second.items()
    image = data / IDS[0] / "imaging.nii.gz"
    os.utime(image, ns=(1, 1))  # touched, not changed: the content decides
    prepare(data, cache, ["fine"], config, IDS)
    assert mtimes(cache) == second
    shutil.copy(data / IDS[1] / "imaging.nii.gz", image)
    prepare(data, cache, ["fine"], config, IDS)
    third = mtimes(cache)
    assert len(third) == 14
    assert second.items() <= third.items()


def test_a_damaged_note_of_a_source_is_made_anew(dataset, make_config, tmp_path):
    prepare(dataset, tmp_path, ["coarse"], make_config(), IDS[:1])
    before = mtimes(tmp_path)
    (tmp_path / "sources" / f"{IDS[0]}.json").write_text("{")
    prepare(dataset, tmp_path, ["coarse"], make_config(), IDS[:1])
    assert mtimes(tmp_path) == before


def test_an_interrupted_preparation_leaves_no_half_file_and_goes_on(dataset, make_config, tmp_path, monkeypatch):
    saves = []
    save = np.save

    def interrupt(*arguments):
        saves.append(arguments)
        if len(saves) == 4:  # the image of the second case
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path, ["coarse"], make_config(), IDS)
    kept = mtimes(tmp_path)
    assert len(kept) == 3
    prepare(dataset, tmp_path, ["coarse"], make_config(), IDS)
    assert len(saves) == 8
    assert len(mtimes(tmp_path)) == 6
    assert all(mtimes(tmp_path)[name] == kept[name] for name in kept if IDS[0] in name)


def test_a_case_without_labels_is_named(dataset, make_config, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    (data / IDS[1] / "segmentation.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case_00001.*one is missing"):
        prepare(data, tmp_path / "cache", ["coarse"], make_config(), IDS)
    with pytest.raises(InputError, match="holds no case case_99999"):
        prepare(data, tmp_path / "cache", ["coarse"], make_config(), ["case_99999"])


def test_neither_order_nor_processes_change_a_case(dataset, make_config, tmp_path):
    forwards = prepare(dataset, tmp_path / "a", ["fine"], make_config(), IDS[:2])["fine"]
    backwards = prepare(dataset, tmp_path / "b", ["fine"], make_config(), IDS[1::-1], workers=2)["fine"][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.image.name == other.image.name
        for first, second in zip(one.load(), other.load(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_regions_come_from_a_coarse_network_where_configured(dataset, small_config, small_weights, tmp_path):
    config = small_config.model_copy(update={"preparation": Preparation(roi="coarse")})
    found = prepare(dataset, tmp_path, ["fine"], config, IDS[:1], coarse_weights=small_weights)["fine"][0].load()
    true = prepare(dataset, tmp_path, ["fine"], small_config, IDS[:1])["fine"][0].load()
    ct, labels = read_case(list_cases(dataset)[0])
    cpu = runtime.choose_for_prediction("cpu")
    network = cpu.predictor(open_weights(small_weights).network("coarse"))
    probability = coarse_probability(coarse_input(ct, config, cpu), [network], cpu)
    box = find_box(clean_coarse(probability, ct, config)[0], ct, config)
    assert box is not None
    for one, expected in zip(found, fine_arrays(ct, labels, config, box), strict=True):
        np.testing.assert_array_equal(one, expected)
    assert found[0].shape != true[0].shape or not np.array_equal(found[0], true[0])
    for settings, weights in ((config, None), (small_config, small_weights)):
        with pytest.raises(ConfigError, match=r"preparation\.roi"):
            prepare(dataset, tmp_path, ["fine"], settings, IDS[:1], coarse_weights=weights)


def test_the_coarse_network_is_loaded_once_and_runs_where_asked(
    dataset, small_config, small_weights, tmp_path, monkeypatch
):
    asked, loaded = [], []
    choose, network = runtime.choose_for_prediction, checkpoint.Weights.network
    monkeypatch.setattr(runtime, "choose_for_prediction", lambda device: asked.append(device) or choose("cpu"))
    monkeypatch.setattr(checkpoint.Weights, "network", lambda *a: loaded.append(a[1]) or network(*a))
    config = small_config.model_copy(update={"preparation": Preparation(roi="coarse")})
    train_cache._coarse_network.cache_clear()
    prepare(dataset, tmp_path, ["fine"], config, IDS, coarse_weights=small_weights, device="cuda:3")
    assert asked == ["cuda:3"]
    assert loaded == ["coarse"]
    train_cache._coarse_network.cache_clear()


KILLED_BETWEEN_LABELS_AND_IMAGE = """
import os, signal, sys
import numpy as np
from renalseg.cli import main

save, saved = np.save, []

def half(path, array):
    saved.append(path)
    if len(saved) < 4:
        return save(path, array)
    save(path, array[: len(array) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    np.save = half
    main()
"""


def test_killed_in_writing_it_goes_on_and_leaves_nothing_behind(dataset, make_config, tmp_path):
    script, settings, out = tmp_path / "killed.py", tmp_path / "config.yaml", tmp_path / "cache"
    script.write_text(KILLED_BETWEEN_LABELS_AND_IMAGE)
    settings.write_text(make_config().to_yaml())
    command = ["prepare", str(dataset), "--out", str(out), "--config", str(settings)]
    assert subprocess.run([sys.executable, str(script), *command], check=False).returncode == -signal.SIGKILL
    (half,) = out.rglob("*.tmp-*")
    assert half.parent.name == "fine"
    before = mtimes(out / "coarse")
    assert len(before) == 2
    subprocess.run([sys.executable, "-m", "renalseg", *command], check=True)
    assert not list(out.rglob("*.tmp-*"))
    assert mtimes(out / "coarse").items() >= before.items()
    expected = prepare(dataset, tmp_path / "straight", GRIDS, make_config(), IDS)
    found = open_cache(out).cases("lesion", make_config())
    assert list(found) == IDS
    for one, other in zip(expected["fine"], found.values(), strict=True):
        for first, second in zip(one.load(), other.load(), strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_index_tells_what_is_there(dataset, make_config, tmp_path):
    config = make_config()
    assert not is_cache(tmp_path)
    prepared = prepare(dataset, tmp_path, GRIDS, config, IDS[:2])
    write_index(dataset, tmp_path, config, prepared)
    assert is_cache(tmp_path)
    cache = open_cache(tmp_path)
    assert cache.labelled == IDS
    assert cache.dataset == dataset.resolve()
    for stage in STAGES:
        found = cache.cases(stage, config)
        assert list(found.values()) == prepared["coarse" if stage == "coarse" else "fine"]
    other = changed(config, margin_mm=(9.0, 9.0, 9.0))
    with pytest.raises(InputError, match="nothing prepared with these settings"):
        cache.cases("kidney", other)
    assert cache.cases("coarse", other)  # the margin does not touch the coarse arrays
    write_index(dataset, tmp_path, other, prepare(dataset, tmp_path, ["fine"], other, IDS))
    both = open_cache(tmp_path)
    assert (len(both.cases("kidney", config)), len(both.cases("kidney", other))) == (2, 3)
    prepared["fine"][0].image.unlink()
    with pytest.raises(InputError, match="lacks files of case_00000"):
        both.cases("lesion", config)


def test_an_index_is_of_one_dataset(dataset, make_config, tmp_path):
    """Ids repeat between datasets: arrays of one never go with the folds and the CTs of another."""
    config, other, cache = make_config(), shutil.copytree(dataset, tmp_path / "other"), tmp_path / "cache"
    write_index(dataset, cache, config, prepare(dataset, cache, ["coarse"], config, IDS))
    write_index(other, cache, config, prepare(other, cache, ["fine"], config, IDS))
    found = open_cache(cache)
    assert found.dataset == other.resolve()
    assert found.cases("kidney", config).keys() == set(IDS)
    with pytest.raises(InputError, match="nothing prepared with these settings"):
        found.cases("coarse", config)


@pytest.mark.parametrize(
    "change",
    [
        {"version": VERSION + 1},
        {"version": VERSION - 1},
        {"grids": None, "dataset": 3},
        {"grids": None},
        {"grids": {"coarse": None}},
        {"grids": {"coarse": {"key": 3}}},
        {"labelled": None},
        [],
        None,
    ],
)
def test_an_index_that_cannot_be_used_says_what_to_do_and_that_helps(change, dataset, make_config, tmp_path, run):
    config, cache = make_config(), tmp_path / "cache"
    write_index(dataset, cache, config, prepare(dataset, cache, GRIDS, config, IDS))
    before, path = mtimes(cache), cache / "index.json"
    if isinstance(change, dict):
        change = json.loads(path.read_text()) | change
    path.write_text("{" if change is None else json.dumps(change))
    with pytest.raises(InputError, match="run `renalseg prepare` again"):
        open_cache(cache)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    code, out, err = run("prepare", dataset, "--out", cache, "--config", tmp_path / "config.yaml")
    assert (code, err) == (0, "")
    assert "3 cases in" in out
    assert len(open_cache(cache).cases("kidney", config)) == 3
    assert mtimes(cache) == before


@pytest.mark.parametrize("given", ["folder", "name"])
def test_the_weights_of_the_regions_go_by_folder_or_name(
    given, dataset, small_config, small_weights, tmp_path, monkeypatch, run
):
    config = small_config.model_copy(update={"preparation": Preparation(roi="coarse")})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    monkeypatch.setattr(checkpoint, "PACKAGED", small_weights.parent)
    coarse, cache = (small_weights.name if given == "name" else small_weights), tmp_path / "cache"
    options = ("prepare", dataset, "--out", cache, "--config", tmp_path / "config.yaml", "--coarse")
    code, _, err = run(*options, coarse)
    assert (code, err) == (0, "")
    found = open_cache(cache).cases("lesion", config)
    assert list(found.values()) == prepare(dataset, cache, ["fine"], config, IDS, coarse_weights=small_weights)["fine"]
    code, _, err = run(*options, "nothing")
    assert code == 2
    assert "no weights there" in err


def test_regions_of_a_network_that_was_trained_otherwise_are_refused(dataset, small_config, small_weights, tmp_path):
    ours = small_config.model_copy(update={"preparation": Preparation(roi="coarse")})
    window = ours.model_copy(update={"intensity": ours.intensity.model_copy(update={"clip_hu": (-100.0, 300.0)})})
    for config, sentence in (
        (changed(ours, shape=(16, 16, 32)), r"coarse\.shape \(16, 16, 16\), the configuration says \(16, 16, 32\)"),
        (changed(ours, margin_mm=(9.0, 9.0, 9.0)), r"coarse\.margin_mm"),
        (window, r"intensity\.clip_hu \(-200\.0, 400\.0\), the configuration says \(-100\.0, 300\.0\)"),
    ):
        with pytest.raises(ConfigError, match=f"{sentence}.*; set it to theirs, or name other weights"):
            prepare(dataset, tmp_path, ["fine"], config, IDS[:1], coarse_weights=small_weights)
    folder = tmp_path / "weights"
    checkpoint.save_stage(folder, ours, "kidney", checkpoint.build(ours.network("kidney")), {})
    with pytest.raises(WeightsError, match="no weights of the stage coarse"):
        prepare(dataset, tmp_path, ["fine"], ours, IDS[:1], coarse_weights=folder)
    assert not mtimes(tmp_path)


def test_what_decides_the_arrays_decides_the_key(make_config):
    config = make_config()
    assert settings_key("coarse", config) != settings_key("fine", config)
    assert settings_key("fine", config) == settings_key("fine", make_config(epochs=9))
    for other in (
        make_config(ignore_beyond_mm=9.0),
        changed(config, margin_mm=(9.0, 9.0, 9.0)),
        config.model_copy(update={"preparation": Preparation(margin_jitter=(1.0, 1.0))}),
        config.model_copy(update={"preparation": Preparation(roi="coarse")}),
        config.model_copy(update={"fine": config.fine.model_copy(update={"in_plane": (16, 32)})}),
    ):
        assert settings_key("fine", config) != settings_key("fine", other)
        assert settings_key("coarse", config) == settings_key("coarse", other)
    shape = changed(config, shape=(16, 16, 32))
    assert settings_key("coarse", config) != settings_key("coarse", shape)
    assert settings_key("fine", config) == settings_key("fine", shape)
    window = config.intensity.model_copy(update={"clip_hu": (-100.0, 300.0)})
    for grid in GRIDS:
        other = config.model_copy(update={"intensity": window})
        assert settings_key(grid, config) != settings_key(grid, other)
