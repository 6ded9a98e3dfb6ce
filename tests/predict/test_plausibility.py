"""``plausibility``: what is told of a label map's anatomy."""

import itertools

import numpy as np
import pytest

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Volume
from renalseg.predict.plausibility import CONTRADICTION, UNUSUAL, plausibility

SPACING = (5.0, 2.0, 2.5)
"""mm, along (z, y, x): a voxel has 25 mm3."""

SHAPE = (50, 60, 120)


@pytest.fixture
def labels():
    """Two kidneys of 144 and 160 ml, a tumor in the right one, a cyst in the left one; the body fills the volume."""
    array = np.zeros(SHAPE, np.uint8)
    array[15:31, 20:40, 20:38] = array[14:30, 20:40, 82:102] = KIDNEY
    array[20:25, 18:24, 18:24] = TUMOR
    array[20:22, 25:28, 90:93] = CYST
    return array


def ct_of(labels, hu=40):
    return Volume.from_array(np.full(labels.shape, hu, np.int16), SPACING)


def findings(labels, ct=None):
    return [f.sentence for f in plausibility(ct or ct_of(labels), labels)[1]]


def test_two_kidneys_are_plausible(labels):
    facts, found = plausibility(ct_of(labels), labels)
    assert found == []
    right, left = sorted(facts["kidneys"], key=lambda k: k["left_of_midline_mm"])
    assert right["left_of_midline_mm"] == pytest.approx((28.5 - 59.5) * 2.5, abs=1)
    assert left["left_of_midline_mm"] == pytest.approx((91.5 - 59.5) * 2.5, abs=0.1)
    assert left["ml"] == pytest.approx(16 * 20 * 20 * 0.025)
    assert left["kidney_ml"] == pytest.approx((16 * 20 * 20 - 2 * 3 * 3) * 0.025)
    assert facts["vertical_offset_mm"] == pytest.approx(5.0, abs=1)
    assert facts["touched_cm2"] == {}
    assert facts["masses_share"] == pytest.approx((5 * 36 + 18) / (labels > 0).sum(), abs=1e-4)


def test_one_kidney(labels):
    labels[:, :, 60:] = 0
    assert findings(labels) == ["Only one connected kidney found (146.5 ml): solitary, fused, or one was missed."]


def test_three_kidneys(labels):
    labels[2:8, 4:18, 55:66] = KIDNEY
    assert findings(labels) == ["3 separate components could be kidneys: 160.0 ml, 146.5 ml, 23.1 ml."]


def test_nothing_as_large_as_a_kidney():
    labels = np.zeros(SHAPE, np.uint8)
    labels[20:22, 20:30, 20:30] = KIDNEY
    assert findings(labels) == ["No component with kidney tissue has 20 ml; the largest component has 5.0 ml."]


def test_small_and_large_kidneys(labels):
    labels[:, :, 92:] = 0
    labels[1:49, 2:58, 2:50] = KIDNEY
    assert findings(labels)[:2] == [
        "A kidney without its masses has 3225.6 ml, over 612 ml.",
        "A kidney with its masses has 80.0 ml, under 90 ml.",
    ]


def test_too_much_of_masses(labels):
    labels[5:45, 5:55, 72:118][labels[5:45, 5:55, 72:118] == 0] = TUMOR
    labels[5:45, 5:55, 3:50][labels[5:45, 5:55, 3:50] == 0] = CYST
    masses, union = (labels > KIDNEY).sum(), (labels > 0).sum()
    assert findings(labels) == [
        f"The masses have {masses * 0.025:.1f} ml, over 2500 ml.",
        f"Masses are {100 * masses / union:.1f}% of all that is labelled, over 90%.",
    ]


def test_masses_that_touch_no_kidney(labels):
    labels[40:44, 10:14, 50:60] = TUMOR
    labels[44, 14, 60] = CYST
    assert findings(labels) == ["Masses touch no kidney tissue: 4.02 ml."]
    labels[40:44, 10:14, 60:62] = KIDNEY
    assert findings(labels) == []


@pytest.mark.parametrize(("start", "side"), [(0, "left"), (1, "right")])
def test_both_on_one_side_of_the_body(labels, start, side):
    """The body decides, not the grid: here it lies in one part of the field of view."""
    array = np.full(SHAPE, -1000, np.int16)
    array[:, 5:55, 2 if start == 0 else 80 : 40 if start == 0 else 118] = 40
    ct = Volume.from_array(array, SPACING)
    if start == 0:
        assert findings(labels, ct) == ["Both kidneys lie left of the body's midline, by 178 mm and 20 mm."]
    else:
        assert findings(labels, ct) == ["Both kidneys lie right of the body's midline, by 18 mm and 175 mm."]
    assert findings(labels, ct_of(labels, -1000)) == []  # no body: the middle of the grid


def test_one_far_below_the_other():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:12, 20:40, 10:40] = labels[30:40, 20:40, 80:110] = KIDNEY
    assert findings(labels) == ["One kidney lies 140 mm below the other, over 120 mm."]


@pytest.mark.parametrize(
    ("where", "border", "cm2"),
    [
        ((slice(0, 20), slice(20, 30), slice(26, 36)), "first slice", 5.0),
        ((slice(20, 50), slice(20, 30), slice(26, 36)), "last slice", 5.0),
        ((slice(15, 25), slice(0, 20), slice(26, 36)), "anterior border", 12.5),
        ((slice(15, 25), slice(20, 60), slice(26, 36)), "posterior border", 12.5),
        ((slice(15, 25), slice(20, 30), slice(0, 20)), "right border", 10.0),
        ((slice(15, 25), slice(20, 30), slice(90, 120)), "left border", 10.0),
    ],
)
def test_cut_off(labels, where, border, cm2):
    labels[where] = KIDNEY
    assert findings(labels) == [f"The labels touch the {border} with {cm2:.1f} cm2: a kidney may be cut off."]


@pytest.mark.parametrize("axes", [a for n in (1, 2, 3) for a in itertools.combinations(range(3), n)])
def test_a_mirrored_patient_is_as_plausible(labels, axes):
    labels[40:44, 10:14, 50:60] = TUMOR
    labels[0:20, 20:30, 20:30] = KIDNEY
    one, found = plausibility(ct_of(labels), labels)
    flipped = np.flip(labels, axes).copy()
    other, again = plausibility(ct_of(flipped), flipped)
    assert [f.factor for f in again] == [f.factor for f in found] == [CONTRADICTION, UNUSUAL]
    for key in ("masses_share", "vertical_offset_mm"):
        assert other[key] == pytest.approx(one[key])
    sign = -1 if 2 in axes else 1
    for a, b in zip(one["kidneys"], other["kidneys"], strict=True):
        assert (a["ml"], a["kidney_ml"]) == (b["ml"], b["kidney_ml"])
        assert a["left_of_midline_mm"] == pytest.approx(sign * b["left_of_midline_mm"], abs=0.11)
