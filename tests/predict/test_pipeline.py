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
from renalseg.predict import pipeline
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
    assert result.record["confidence"] == reference.record["confidence"]


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
    assert record["confidence"]["value"] == record["confidence"]["coarse_peak"] + 1 == 1


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
    assert result.record["warnings"] == [
        f"No kidney found; 2 components of {ml:.1f} ml in all were too small.",
        "Low confidence 0.00 (limit 0.5) that there is no kidney: the coarse network's highest probability is 1.00; "
        "look at the scan.",
    ]


def test_the_record(ct, labels, models, small_config, cpu):
    record = segment_volume(replace(ct, warnings=("Something was assumed.",)), models, small_config, cpu).record
    assert json.loads(json.dumps(record))["case"] == "case"
    assert set(record["timings_s"]) == {"coarse", "roi", "kidney", "lesion", "compose", "clean", "confidence", "total"}
    assert all(t >= 0 for t in record["timings_s"].values())
    parts = sum(t for step, t in record["timings_s"].items() if step != "total")
    assert parts <= record["timings_s"]["total"] + 0.01
    assert record["peak_memory_mb"]["host"] > 10
    assert record["peak_memory_mb"]["device"] is None
    assert record["warnings"] == ["Something was assumed.", *record["confidence"]["warnings"]]
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


def test_warnings_about_the_result(ct, models, exact, cpu):
    """The fixture's kidneys are small, so that their volume is a finding too."""
    one = ct.with_array(np.where(np.arange(32) < 16, ct.array, 0).astype(np.int16))
    assert segment_volume(one, models, exact, cpu).record["warnings"] == [
        "Only one connected kidney found (29.6 ml): solitary, fused, or one was missed.",
        "A kidney with its masses has 29.6 ml, under 90 ml.",
    ]
    cut = replace(ct, array=ct.array[4:])
    assert (
        "The labels touch the first slice with 21.2 cm2: a kidney may be cut off."
        in (segment_volume(cut, models, exact, cpu).record["warnings"])
    )


def test_confidence(ct, models, exact, cpu):
    found = segment_volume(ct, models, exact, cpu).record["confidence"]
    assert found["agreement"] == {"kidney": 1.0, "masses": 1.0, "tumor": 1.0}
    assert min(found["expected_dice"].values()) > 0.99
    assert max(found["entropy"].values()) < 0.01
    assert found["coarse_peak"] is None
    assert found["warnings"] == [f"A kidney with its masses has {ml} ml, under 90 ml." for ml in (42.0, 29.6)]
    assert found["value"] == pytest.approx(0.8**2, abs=0.01)


def test_doubt_lowers_confidence(ct, models, lines, exact, cpu):
    """Networks of the same labels, whose probabilities are less sure of them."""
    sure = segment_volume(ct, models, exact, cpu)
    soft = replace(models, kidney=[lines([0.0, 4.0], [0.0, 0.0])], lesion=[lines([0.0, 4.0, 8.0], [0.0, -4 / 3, -4.0])])
    unsure = segment_volume(ct, soft, exact, cpu)
    np.testing.assert_array_equal(unsure.labels.array, sure.labels.array)
    for part in ("expected_dice", "entropy"):
        assert unsure.record["confidence"][part] != sure.record["confidence"][part]
    assert unsure.record["confidence"]["value"] < sure.record["confidence"]["value"] - 0.1
    assert unsure.record["warnings"][-1].startswith("Low confidence 0.")


def test_without_mirrored_predictions_there_is_no_agreement(ct, models, exact, cpu):
    assert segment_volume(ct, models, exact, cpu, mirror=False).record["confidence"]["agreement"] is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_patient_gets_the_same_confidence(ct, models, lines, exact, cpu, axis):
    soft = replace(models, kidney=[lines([0.0, 6.0], [0.0, 0.0])], lesion=[lines([0.0, 4.0, 8.0], [0.0, -4 / 3, -4.0])])
    one = segment_volume(ct, soft, exact, cpu).record["confidence"]
    other = segment_volume(ct.with_array(np.flip(ct.array, axis).copy()), soft, exact, cpu).record["confidence"]
    assert other["value"] == pytest.approx(one["value"], abs=2e-4)
    assert len(other["warnings"]) == len(one["warnings"])


class Full(torch.nn.Module):
    """A network whose device has no room for it; its copy on the CPU answers."""

    def __init__(self, network):
        super().__init__()
        self.inner = [network]

    def __deepcopy__(self, _):
        return self.inner[0]

    def forward(self, _):
        raise torch.OutOfMemoryError("no room")


@pytest.mark.parametrize("full", ["coarse", "kidney", "lesion"])
def test_a_stage_without_room_on_the_device_is_computed_on_the_cpu(full, ct, models, small_config, cpu, elsewhere):
    expected = segment_volume(ct, models, small_config, cpu)
    networks = replace(models, **{full: [Full(getattr(models, full)[0])]})
    result = segment_volume(ct, networks, small_config, elsewhere)
    np.testing.assert_array_equal(result.labels.array, expected.labels.array)
    assert f"The device's memory ran out; the stage {full} was computed on the CPU." in result.record["warnings"]


@pytest.mark.parametrize(("name", "what"), [("fine_input", "the region was"), ("compose", "the labels were")])
def test_what_has_no_room_beside_the_networks_is_computed_on_the_cpu(
    name, what, ct, models, small_config, elsewhere, monkeypatch
):
    whole, guarded, places = getattr(pipeline, name), pipeline.or_on_cpu, []

    def small(*arguments):
        places.append(arguments[-1].type)
        if arguments[-1].type != "cpu":
            raise torch.OutOfMemoryError("no room")
        return whole(*arguments)

    def on_meta(said, device, *more):
        return guarded(said, torch.device("meta") if said == what else device, *more)

    expected = segment_volume(ct, models, small_config, elsewhere)
    monkeypatch.setattr(pipeline, name, small)
    monkeypatch.setattr(pipeline, "or_on_cpu", on_meta)
    result = segment_volume(ct, models, small_config, elsewhere)
    assert places == ["meta", "cpu"]
    np.testing.assert_array_equal(result.labels.array, expected.labels.array)
    assert f"The device's memory ran out; {what} computed on the CPU." in result.record["warnings"]


def test_a_confidence_without_room_on_the_device_is_told_on_the_cpu(ct, models, small_config, elsewhere, monkeypatch):
    expected = segment_volume(ct, models, small_config, elsewhere)
    told, guarded, places = pipeline.doubt, pipeline.or_on_cpu, []

    def small(kidney, lesion, mirrors):
        places.append((kidney.device.type, lesion.device.type))
        if kidney.device.type != "cpu":
            raise torch.OutOfMemoryError("no room")
        return told(kidney, lesion, mirrors)

    def on_meta(said, device, run, warnings):
        if said != "the confidence was":
            return guarded(said, device, run, warnings)
        return guarded(said, torch.device("meta"), lambda place: run(place), warnings)

    monkeypatch.setattr(pipeline, "doubt", small)
    monkeypatch.setattr(pipeline, "or_on_cpu", on_meta)
    result = segment_volume(ct, models, small_config, elsewhere)
    assert places == [("meta", "meta"), ("cpu", "cpu")]
    assert result.record["confidence"]["value"] == expected.record["confidence"]["value"]
    assert "The device's memory ran out; the confidence was computed on the CPU." in result.record["warnings"]


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
