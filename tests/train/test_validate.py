import numpy as np
import pytest
import torch

from renalseg.config import STAGES
from renalseg.core.volume import Volume
from renalseg.io.kits import list_cases
from renalseg.model.resunet import build
from renalseg.model.runtime import Runtime
from renalseg.predict.pipeline import Models
from renalseg.train.validate import box_coverage, make_validator

BOX = {"start": [0, 0, 0], "stop": [2, 4, 4]}


def labels(*voxels):
    array = np.zeros((4, 4, 4), np.uint8)
    for label, voxel in enumerate(voxels, 1):
        array[voxel] = label
    return Volume.from_array(array, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("truth", "box", "share"),
    [
        (labels(), BOX, 1.0),
        (labels(), None, 1.0),
        (labels((0, 0, 0)), None, 0.0),
        (labels((0, 0, 0), (1, 3, 3)), BOX, 1.0),
        (labels((2, 0, 0)), BOX, 0.0),
        (labels((1, 0, 0), (2, 0, 0)), BOX, 0.5),
        (labels((3, 3, 3)), {"start": [0, 0, 0], "stop": [4, 4, 4]}, 1.0),
    ],
    ids=["nothing to find", "nothing, no box", "no box", "all inside", "beside", "half", "last voxel"],
)
def test_box_coverage(truth, box, share):
    assert box_coverage(truth, box) == share


@pytest.mark.parametrize("stage", STAGES)
def test_the_record_holds_scores_and_what_decides(stage, dataset, make_config):
    config = make_config()
    validate = make_validator(stage, list_cases(dataset)[:1], config, Runtime(torch.device("cpu"), "fp32"), Models())
    record = validate(build(config.network(stage)).eval())
    names = ("kidney", "masses", "tumor")
    expected = {f"{kind}_{name}" for kind in ("dice", "sd") for name in names}
    assert record.keys() == expected | {"box_coverage", "case_seconds", "score"}
    assert all(0 <= record[key] <= 1 for key in expected | {"box_coverage"})
    first, second = {
        "coarse": ("box_coverage", "dice_kidney"),
        "kidney": ("dice_kidney", "sd_kidney"),
        "lesion": ("dice_masses", "dice_tumor"),
    }[stage]
    assert record["score"] == record[first] + record[second]
    if stage != "coarse":
        assert record["box_coverage"] == 1.0  # the coarse stage answered as a perfect one would
    if stage == "lesion":
        assert record["dice_kidney"] > 0.8  # and so did the kidney stage


def test_a_network_is_scored_as_it_runs_for_users(dataset, make_config, monkeypatch):
    config, placed = make_config(), []

    def predictor(self, network):
        placed.append((self.precision, network))
        return self.place(network)

    monkeypatch.setattr(Runtime, "predictor", predictor)
    network = build(config.network("lesion")).eval()
    make_validator("lesion", list_cases(dataset)[:1], config, Runtime(torch.device("cpu"), "fp32"), Models())(network)
    assert placed == [("fp32", network)]
