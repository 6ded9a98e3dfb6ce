import os
import shutil

import numpy as np
import pytest
from scipy.spatial import cKDTree

from renalseg.config import STAGES, Config
from renalseg.core.errors import InputError
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases, read_case
from renalseg.train.prepare import IGNORE, fine_arrays, prepare, training_box

IDS = ["case_00000", "case_00001", "case_00002"]


def changed(config: Config, **coarse) -> Config:
    return config.model_copy(update={"coarse": config.coarse.model_copy(update=coarse)})


def mtimes(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}


@pytest.mark.parametrize("stage", STAGES)
def test_arrays_have_the_shape_of_the_stage(stage, dataset, make_config, tmp_path):
    config, calls = make_config(), []
    made = prepare(dataset, tmp_path, stage, config, IDS[:2], on_case=lambda *call: calls.append(call))
    assert [p.case_id for p in made] == IDS[:2]
    assert calls == [(IDS[0], 1, 2), (IDS[1], 2, 2)]
    for case, prepared in zip(list_cases(dataset), made, strict=False):
        image, target = prepared.load()
        ct, labels = read_case(case)
        depth = training_box(labels, config, ct.name).shape[0]
        expected = config.coarse.shape if stage == "coarse" else (depth, *config.fine.in_plane)
        assert image.shape == target.shape == expected
        assert image.dtype == np.float16
        assert target.dtype == np.uint8
        assert image.min() >= -1
        assert image.max() <= 1
        values = {"coarse": {0, 1}, "kidney": {0, 1}, "lesion": {0, 1, 2, IGNORE}}[stage]
        assert set(np.unique(target).tolist()) == values


def test_the_region_is_never_resampled_along_z(dataset, make_config):
    ct, labels = read_case(list_cases(dataset)[0])
    hu = np.linspace(-200, 400, ct.shape[0])
    stripes = ct.with_array(np.broadcast_to(hu[:, None, None], ct.shape).astype(np.float32))
    image, _ = fine_arrays(stripes, labels, "kidney", make_config())
    box = training_box(labels, make_config(), ct.name)
    expected = np.linspace(-1, 1, ct.shape[0])[box.slices[0]]
    np.testing.assert_allclose(image, np.broadcast_to(expected[:, None, None], image.shape), atol=1e-3)


def test_the_box_holds_the_kidneys_with_at_least_half_the_margin(dataset, make_config):
    config = make_config()
    for seed in range(20):
        _, labels = read_case(list_cases(dataset)[0])
        box = training_box(labels, config, seed=str(seed))
        hits = np.argwhere(labels.array > 0)
        for axis in range(3):
            pad = 0.5 * config.coarse.margin_mm[axis] / labels.spacing_mm[axis]
            assert box.start[axis] <= max(0, hits[:, axis].min() - pad)
            assert box.stop[axis] >= min(labels.shape[axis], hits[:, axis].max() + 1 + pad)
    assert training_box(labels, config, "a") == training_box(labels, config, "a") != training_box(labels, config, "b")


def test_lesion_voxels_count_up_to_the_distance_from_the_kidney(dataset, make_config):
    config = make_config(ignore_beyond_mm=9.0)
    ct, labels = read_case(list_cases(dataset)[0])
    _, lesion = fine_arrays(ct, labels, "lesion", config)
    _, kidney = fine_arrays(ct, labels, "kidney", config)
    box = training_box(labels, config, ct.name)
    pixel = [s * n / m for s, n, m in zip(ct.spacing_mm, box.shape, kidney.shape, strict=True)]
    everywhere = np.argwhere(np.ones_like(kidney)) * pixel
    distance = cKDTree(np.argwhere(kidney > 0) * pixel).query(everywhere)[0].reshape(kidney.shape)
    np.testing.assert_array_equal(lesion == IGNORE, distance > 9.0)
    assert (lesion[kidney == 0] != 1).all()
    assert (lesion[kidney == 0] != 2).all()


def test_the_target_agrees_with_the_labels_where_nothing_is_resampled(make_config):
    labels = np.zeros((6, 16, 24), np.uint8)
    labels[2:4, 4:12, 4:20], labels[2:4, 5:8, 5:10], labels[3, 9:11, 15:18] = 1, 2, 3
    config = changed(make_config(ignore_beyond_mm=100.0), margin_mm=(900.0, 900.0, 900.0))  # all of the volume
    ct = Volume.from_array(np.zeros(labels.shape, np.int16), (3.0, 1.0, 1.0))
    _, target = fine_arrays(ct, ct.with_array(labels), "lesion", config)
    np.testing.assert_array_equal(target, np.array([0, 0, 1, 2])[labels])


def test_cached_files_are_reused_until_source_or_settings_change(dataset, make_config, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(dataset, data)
    config = make_config()
    prepare(data, cache, "kidney", config, IDS)
    first = mtimes(cache)
    assert len(first) == 6
    prepare(data, cache, "kidney", make_config(learning_rate=1.0), IDS)
    assert mtimes(cache) == first
    prepare(data, cache, "kidney", changed(config, margin_mm=(9.0, 9.0, 9.0)), IDS)
    second = mtimes(cache)
    assert len(second) == 12
    assert first.items() <= second.items()
    image = data / IDS[0] / "imaging.nii.gz"
    os.utime(image, ns=(1, 1))
    prepare(data, cache, "kidney", config, IDS)
    third = mtimes(cache)
    assert len(third) == 14
    assert second.items() <= third.items()


def test_an_interrupted_preparation_leaves_no_half_file(dataset, make_config, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path / "cache", "coarse", make_config(), IDS[:1])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_case_without_kidneys_teaches_background_only(stage, write_dataset, make_config, tmp_path):
    data = write_dataset(tmp_path / "data", 1, empty=1)
    image, target = prepare(data, tmp_path / "cache", stage, make_config(), IDS[:1])[0].load()
    assert min(image.shape) >= 1
    assert image.shape == target.shape
    assert (target == (IGNORE if stage == "lesion" else 0)).all()


def test_a_case_without_labels_is_named(dataset, make_config, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(dataset, data)
    (data / IDS[1] / "segmentation.nii.gz").unlink()
    with pytest.raises(InputError, match=r"case_00001.*one is missing"):
        prepare(data, tmp_path / "cache", "coarse", make_config(), IDS)


def test_the_image_does_not_depend_on_the_order_of_the_cases(dataset, make_config, tmp_path):
    forwards = prepare(dataset, tmp_path / "a", "lesion", make_config(), IDS[:2])
    backwards = prepare(dataset, tmp_path / "b", "lesion", make_config(), IDS[1::-1])[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert one.image.name == other.image.name
        np.testing.assert_array_equal(one.load()[0], other.load()[0])
