"""``Segmenter``: weights from disk to labels."""

import numpy as np
import pytest
import torch

from renalseg.config import STAGES
from renalseg.core.errors import ConfigError, WeightsError
from renalseg.model.checkpoint import open_weights, save_stage
from renalseg.model.resunet import build
from renalseg.predict.segmenter import Segmenter, segment


@pytest.fixture
def random_weights(small_config, tmp_path):
    """Makes a weights folder of random networks."""

    def make(seed, config=small_config):
        folder = tmp_path / f"random{seed}"
        for stage in STAGES:
            network = build(config.network(stage), seed)
            with torch.no_grad():
                network.head.weight.mul_(5)
            save_stage(folder, config, stage, network, {})
        return folder

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_from_disk(ct, labels, exact, small_weights, precision):
    segmenter = Segmenter(small_weights, "cpu", precision)
    segmenter.config = exact
    result = segmenter.segment(ct)
    np.testing.assert_array_equal(result.labels.array, labels)
    record = result.record
    weights = open_weights(small_weights)
    assert record["weights"] == [{"path": "small", "sha256": weights.sha256, "config_sha256": weights.config.sha256()}]
    assert record["weights_sha256"] == segmenter.weights_sha256 == weights.sha256


def test_segment_is_the_segmenter(ct, small_weights):
    once = segment(ct, small_weights, "cpu")
    np.testing.assert_array_equal(once.labels.array, Segmenter(str(small_weights), "cpu").segment(ct).labels.array)


def test_several_weights_are_averaged(ct, small_weights, random_weights):
    """Their order does not matter, and weights averaged with themselves are those weights."""
    other = random_weights(1)
    alone = Segmenter(small_weights, "cpu", "fp32")
    both = Segmenter([small_weights, other], "cpu", "fp32")
    swapped = Segmenter([other, small_weights], "cpu", "fp32")
    assert len({alone.weights_sha256, both.weights_sha256, swapped.weights_sha256}) == 3
    result = both.segment(ct)
    np.testing.assert_array_equal(result.labels.array, swapped.segment(ct).labels.array)
    assert [w["path"] for w in result.record["weights"]] == ["small", "random1"]
    twice = Segmenter([small_weights, small_weights], "cpu", "fp32").segment(ct)
    np.testing.assert_array_equal(twice.labels.array, alone.segment(ct).labels.array)


def test_weights_of_other_widths_average_but_of_other_grids_do_not(ct, small_config, small_weights, random_weights):
    fine = small_config.fine
    wide = fine.model_copy(update={"kidney": fine.kidney.model_copy(update={"widths": (5, 7)})})
    Segmenter([small_weights, random_weights(1, small_config.model_copy(update={"fine": wide}))], "cpu").segment(ct)
    other = random_weights(2, small_config.model_copy(update={"fine": fine.model_copy(update={"window": 9})}))
    with pytest.raises(WeightsError, match=r"random2: these weights work on another grid than .*small; only"):
        Segmenter([small_weights, other], "cpu")


def test_test_time_augmentation_changes_the_result(ct, random_weights):
    folder = random_weights(0)
    rng = np.random.default_rng(0)
    noisy = ct.with_array(ct.array + rng.integers(-200, 200, ct.shape, np.int16))
    results = [Segmenter(folder, "cpu", "fp32", tta=tta).segment(noisy) for tta in (True, False, True)]
    assert [r.record["mirror_z"] for r in results] == [True, False, True]
    assert results[0].labels.array.any()
    assert (results[0].labels.array != results[1].labels.array).any()
    np.testing.assert_array_equal(results[0].labels.array, results[2].labels.array)


def test_what_cannot_be_loaded(small_config, small_weights, tmp_path):
    with pytest.raises(WeightsError, match="no weights were named"):
        Segmenter([])
    with pytest.raises(WeightsError, match="no weights there"):
        Segmenter(tmp_path / "none")
    with pytest.raises(ConfigError, match="there is no device"):
        Segmenter(small_weights, device="gpu")
    with pytest.raises(ConfigError, match="there is no precision"):
        Segmenter(small_weights, precision="int8")
    save_stage(tmp_path, small_config, "coarse", build(small_config.network("coarse")), {})
    with pytest.raises(WeightsError, match="there are no weights of the stage kidney"):
        Segmenter(tmp_path, "cpu")


def test_a_device_without_room_for_the_networks_is_said_in_one_sentence(small_weights, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("renalseg.model.runtime.Runtime.predictor", full)
    with pytest.raises(ConfigError, match="the device 'cpu' has no memory left for the networks"):
        Segmenter(small_weights, "cpu", "fp32")
