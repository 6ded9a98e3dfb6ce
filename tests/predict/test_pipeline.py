"""``pipeline``: the whole cascade with networks that answer from the intensity."""

import itertools
import json
from dataclasses import replace

import nibabel.orientations as nio
import numpy as np
import pytest
import torch

from renalseg import __version__
from renalseg.config import PAPER, TINY
from renalseg.core.labels import HECS
from renalseg.core.volume import Grid, Volume
from renalseg.predict.pipeline import Models, segment_volume

ORIENTATIONS = [
    "".join(axes) for order in itertools.permutations(("RL", "AP", "SI")) for axes in itertools.product(*order)
]


@pytest.fixture
def models(above, lesion):
    return Models([above(0.0)], [above(0.0)], [lesion])


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def oriented(volume, codes):
    """The same volume as a file in another axis order would store it."""
    turn = nio.ornt_transform(nio.io_orientation(volume.grid.affine), nio.axcodes2ornt(tuple(codes)))
    stored = nio.apply_orientation(volume.stored(), turn)
    affine = volume.grid.affine @ nio.inv_ornt_aff(turn, volume.grid.shape)
    return Volume.from_stored(stored, Grid(stored.shape, affine)), turn


def test_every_voxel_is_told_on_the_same_grid(ct, labels, models, exact, cpu):
    result = segment_volume(ct, models, exact, cpu)
    np.testing.assert_array_equal(result.labels.array, labels)
    assert result.labels.array.dtype == np.uint8
    assert result.record["box_zyx"] == {"start": [0, 0, 0], "stop": [12, 16, 32]}
    assert result.record["kidney_found"]


def test_through_box_and_fine_grid_and_back(labels, models, small_config, cpu):
    big = np.pad(labels.repeat(2, 1).repeat(2, 2), 8)
    volume = Volume.from_array(np.array([0, 150, 250, 350], np.int16)[big], (5.0, 2.5, 2.5))
    config = small_config.model_copy(update={"fine": small_config.fine.model_copy(update={"in_plane": (48, 80)})})
    result = segment_volume(volume, models, config, cpu)
    box = result.record["box_zyx"]
    assert 0 < box["start"][0] < box["stop"][0] < 28
    assert result.labels.shape == volume.shape
    assert dice(result.labels.array > 0, big > 0) > 0.9


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_all_48_orientations_give_the_same_labels(codes, ct, small_config, cpu, models):
    volume = replace(ct, array=ct.array + np.random.default_rng(0).integers(-60, 60, ct.shape, np.int16))
    reference = segment_volume(volume, models, small_config, cpu)
    assert set(np.unique(reference.labels.array)) == {0, 1, 2, 3}
    turned, turn = oriented(volume, codes)
    result = segment_volume(turned, models, small_config, cpu)
    np.testing.assert_array_equal(result.labels.array, reference.labels.array)
    np.testing.assert_array_equal(result.labels.stored(), nio.apply_orientation(reference.labels.stored(), turn))
    assert result.labels.grid is turned.grid
    assert result.record["volumes_ml"] == reference.record["volumes_ml"]


def test_an_oblique_grid_comes_back_exactly(ct, labels, models, exact, cpu):
    angle = np.deg2rad(17)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = [-31.4, 15.9, 265.3]
    grid = Grid(ct.grid.shape, turn @ ct.grid.affine, {"sform_code": 2})
    volume = Volume.from_stored(ct.stored(), grid)
    result = segment_volume(volume, models, exact, cpu)
    assert result.labels.grid is grid
    np.testing.assert_array_equal(result.labels.affine, volume.affine)
    np.testing.assert_array_equal(result.labels.array, labels)


@pytest.mark.parametrize("hu", [-1000, 0])
def test_an_empty_volume_is_said_to_be_empty(hu, ct, models, small_config, cpu):
    result = segment_volume(ct.with_array(np.full(ct.shape, hu, np.int16)), models, small_config, cpu)
    assert not result.labels.array.any()
    assert result.labels.shape == ct.shape
    record = result.record
    assert record["kidney_found"] is False
    assert record["warnings"] == ["No kidney found."]
    assert (record["box_zyx"], record["components"], record["dropped_components"]) == (None, [], [])
    assert record["volumes_ml"] == {"kidney": 0, "tumor": 0, "cyst": 0}


def test_what_was_dropped_is_reported(ct, labels, models, exact, cpu):
    array = ct.array.copy()
    array[0, 0, 14:18] = 150
    result = segment_volume(ct.with_array(array), models, exact, cpu)
    np.testing.assert_array_equal(result.labels.array, labels)
    dropped = [d for d in result.record["dropped_components"] if d["stage"] == "clean"]
    assert dropped == [{"stage": "clean", "voxels": 4, "ml": 0.5, "centre_zyx": (0.0, 0.0, 15.5)}]


def test_a_result_that_the_rule_empties_is_not_emptied_in_silence(ct, models, exact, cpu):
    result = segment_volume(ct, models, exact.model_copy(update={"clean": PAPER.clean}), cpu)
    assert not result.labels.array.any()
    assert not result.record["kidney_found"]
    assert len(result.record["dropped_components"]) == 2
    ml = sum(d["ml"] for d in result.record["dropped_components"])
    assert result.record["warnings"] == [f"No kidney found; 2 components of {ml:.1f} ml in all were too small."]


def test_the_record(ct, labels, models, small_config, cpu):
    record = segment_volume(replace(ct, warnings=("Something was assumed.",)), models, small_config, cpu).record
    assert json.loads(json.dumps(record))["case"] == "case"
    assert set(record["timings_s"]) == {"coarse", "roi", "kidney", "lesion", "compose", "clean", "total"}
    assert all(t >= 0 for t in record["timings_s"].values())
    parts = sum(t for step, t in record["timings_s"].items() if step != "total")
    assert parts <= record["timings_s"]["total"] + 0.01
    assert record["peak_memory_mb"]["host"] > 10
    assert record["peak_memory_mb"]["device"] is None
    assert record["warnings"] == ["Something was assumed."]
    assert record["dropped_components"] == []
    assert (record["renalseg"], record["torch"]) == (__version__, torch.__version__)
    assert record["config_sha256"] == small_config.sha256()
    assert (record["preset"], record["device"], record["precision"]) == ("small", "cpu", "fp32")
    assert record["mirror_z"] is True
    assert (record["shape_zyx"], record["spacing_mm_zyx"]) == ([12, 16, 32], [5.0, 5.0, 5.0])
    assert len(record["components"]) == 2
    assert "Not a medical device" in record["notice"]


def test_volumes_are_in_ml(ct, labels, models, exact, cpu):
    record = segment_volume(ct, models, exact, cpu).record
    count = {name: int((labels == i).sum()) for i, name in ((1, "kidney"), (2, "tumor"), (3, "cyst"))}
    assert record["volumes_ml"] == {name: pytest.approx(n * 0.125, abs=1e-3) for name, n in count.items()}
    assert sum(c["voxels"] for c in record["components"]) == sum(count.values())


def test_mirror_is_off_where_asked(ct, models, small_config, cpu):
    assert segment_volume(ct, models, small_config, cpu, mirror=False).record["mirror_z"] is False


def test_warnings_about_the_result(ct, labels, models, exact, cpu):
    one = ct.with_array(np.where(np.arange(32) < 16, ct.array, 0).astype(np.int16))
    assert segment_volume(one, models, exact, cpu).record["warnings"] == [
        "Only one connected kidney found: solitary, fused, or one was missed."
    ]
    cut = replace(ct, array=ct.array[4:])
    assert (
        "A kidney touches the first or last slice: it may be cut off."
        in (segment_volume(cut, models, exact, cpu).record["warnings"])
    )


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_few_slices(ct, labels, models, exact, cpu, depth):
    thin = replace(ct, array=ct.array[5 : 5 + depth])
    config = exact.model_copy(update={"coarse": exact.coarse.model_copy(update={"min_component_mm3": 0.0})})
    config = config.model_copy(update={"clean": config.clean.model_copy(update={"min_mm3": 0.0})})
    np.testing.assert_array_equal(segment_volume(thin, models, config, cpu).labels.array, labels[5 : 5 + depth])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_any_voxel_type(ct, labels, models, exact, cpu, dtype):
    volume = ct.with_array(ct.array.astype(dtype))
    np.testing.assert_array_equal(segment_volume(volume, models, exact, cpu).labels.array, labels)


def ellipsoid(shape, centre, radii):
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((i - c) / r) ** 2 for i, c, r in zip(axes, centre, radii, strict=True)) < 1


def test_perfect_networks_give_back_the_truth(cpu):
    """The cascade itself costs nothing: the truth through coarse mask, box, fine grid and back is the truth."""
    shape = (24, 64, 96)
    truth = np.zeros(shape, np.uint8)
    truth[ellipsoid(shape, (12, 36, 24), (9, 11, 11))] = 1
    truth[ellipsoid(shape, (11, 36, 72), (9, 12, 10))] = 1
    truth[ellipsoid(shape, (9, 32, 80), (5, 7, 7))] = 2
    truth[ellipsoid(shape, (14, 40, 18), (3, 4, 5))] = 3
    volume = Volume.from_array(np.zeros(shape, np.int16), (4.0, 3.0, 3.0))
    config = TINY.model_copy(update={"fine": TINY.fine.model_copy(update={"in_plane": shape[1:]})})
    result = segment_volume(volume, Models(), config, cpu, truth=volume.with_array(truth))
    for hec in HECS:
        assert dice(hec.mask(result.labels.array), hec.mask(truth)) > 0.99, hec.name
    assert dice(result.labels.array == 3, truth == 3) > 0.99


def test_one_network_among_perfect_ones(ct, labels, above, exact, cpu):
    """Validation of one stage: the stages without networks answer as perfect ones."""
    models = Models(kidney=[above(1 / 3)])
    result = segment_volume(ct, models, exact, cpu, truth=ct.with_array(labels))
    # Above 200 HU there are only tumor (27 voxels of 125 mm3) and cyst (8), each too small to be a kidney.
    assert [d["voxels"] for d in result.record["dropped_components"]] == [27, 8]
    assert result.record["box_zyx"] is not None
