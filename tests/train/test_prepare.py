import numpy as np
import torch
from scipy.spatial import cKDTree

from renalseg.config import Config, Preparation
from renalseg.core.volume import Volume
from renalseg.image.boxes import Box
from renalseg.io.kits import list_cases, read_case
from renalseg.predict.coarse import perfect_mask
from renalseg.predict.roi import find_box
from renalseg.train.prepare import IGNORE, RIM, coarse_arrays, fine_arrays, targets, training_box


def changed(config: Config, **coarse) -> Config:
    return config.model_copy(update={"coarse": config.coarse.model_copy(update=coarse)})


def test_coarse_arrays_have_the_coarse_shape_and_a_perfect_networks_answer(dataset, make_config):
    config = make_config()
    ct, labels = read_case(list_cases(dataset)[0])
    image, found = coarse_arrays(ct, labels, config)
    assert image.shape == found.shape == config.coarse.shape
    assert (image.dtype, found.dtype) == (np.float16, np.uint8)
    assert image.min() >= -1
    assert image.max() <= 1
    assert set(np.unique(found).tolist()) == {0, 1, 2, 3}
    np.testing.assert_array_equal(found > 0, perfect_mask(labels, config).numpy())
    np.testing.assert_array_equal(targets(torch.from_numpy(found), "coarse").numpy(), found > 0)


def test_fine_arrays_have_the_fine_grid(dataset, make_config):
    config = make_config()
    ct, labels = read_case(list_cases(dataset)[0])
    image, found = fine_arrays(ct, labels, config)
    depth = training_box(labels, config, ct.name).shape[0]
    assert image.shape == found.shape == (depth, *config.fine.in_plane)
    assert (image.dtype, found.dtype) == (np.float16, np.uint8)
    assert set(np.unique(found).tolist()) == {0, 1, 2, 3, RIM}


def test_the_region_is_never_resampled_along_z(dataset, make_config):
    ct, labels = read_case(list_cases(dataset)[0])
    hu = np.linspace(-200, 400, ct.shape[0])
    stripes = ct.with_array(np.broadcast_to(hu[:, None, None], ct.shape).astype(np.float32))
    image, _ = fine_arrays(stripes, labels, make_config())
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
    found = torch.from_numpy(fine_arrays(ct, labels, config)[1])
    lesion, kidney = (targets(found, stage).numpy() for stage in ("lesion", "kidney"))
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
    _, found = fine_arrays(ct, ct.with_array(labels), config)
    np.testing.assert_array_equal(found, np.array([RIM, 1, 2, 3])[labels])


def test_a_given_box_is_cut(dataset, make_config):
    ct, labels = read_case(list_cases(dataset)[0])
    box = Box((3, 4, 5), (9, 40, 41))
    assert fine_arrays(ct, labels, make_config(), box)[0].shape[0] == 6


def test_the_jitter_of_the_box_is_configured(dataset, make_config):
    _, labels = read_case(list_cases(dataset)[0])
    steady = make_config().model_copy(update={"preparation": Preparation(margin_jitter=(1.0, 1.0))})
    boxes = {training_box(labels, steady, seed=str(seed)) for seed in range(10)}
    assert boxes == {find_box(labels.array > 0, labels, steady)}
    assert len({training_box(labels, make_config(), seed=str(seed)) for seed in range(10)}) > 1


def test_a_case_without_kidneys_teaches_background_only(write_dataset, make_config, tmp_path):
    ct, labels = read_case(list_cases(write_dataset(tmp_path, 1, empty=1))[0])
    assert (coarse_arrays(ct, labels, make_config())[1] == 0).all()
    image, found = fine_arrays(ct, labels, make_config())
    assert min(image.shape) >= 1
    assert (found == 0).all()
    assert (targets(torch.from_numpy(found), "lesion") == IGNORE).all()
