import numpy as np
import pytest

from renalseg.core.labels import CYST, KIDNEY, TUMOR
from renalseg.core.volume import Grid, Volume
from renalseg.report.sides import kidney_sides

SPACING_MM = (4.0, 2.0, 2.0)


def label_map(*boxes, shape=(30, 80, 160)):
    """Labels at 4 x 2 x 2 mm; each box is (label, z, y, x) with (first, stop) pairs."""
    array = np.zeros(shape, np.uint8)
    for label, *spans in boxes:
        array[tuple(slice(*s) for s in spans)] = label
    return Volume.from_array(array, SPACING_MM)


RIGHT = (KIDNEY, (5, 25), (40, 60), (25, 50))
LEFT = (KIDNEY, (8, 24), (40, 60), (110, 135))


def test_two_kidneys_come_right_first_with_their_own_masses_and_volumes():
    labels = label_map(RIGHT, LEFT, (TUMOR, (10, 14), (45, 50), (128, 140)), (CYST, (6, 8), (45, 48), (30, 34)))
    right, left = kidney_sides(labels)
    assert (right.title, left.title) == ("Right kidney", "Left kidney")
    assert right.note == left.note == ""
    assert right.volumes_ml["tumor"] == 0
    assert left.volumes_ml["cyst"] == 0
    assert left.volumes_ml["tumor"] == pytest.approx(4 * 5 * 12 * 16 / 1000)
    assert right.volumes_ml["cyst"] == pytest.approx(2 * 3 * 4 * 16 / 1000)
    total = (labels.array == KIDNEY).sum() * 16 / 1000
    assert right.volumes_ml["kidney"] + left.volumes_ml["kidney"] == pytest.approx(total)


def test_the_parts_lie_where_their_boxes_say():
    labels = label_map(RIGHT, LEFT, (TUMOR, (10, 14), (45, 50), (128, 140)))
    rebuilt = np.zeros_like(labels.array)
    for kidney in kidney_sides(labels):
        rebuilt[kidney.box] += kidney.labels
    np.testing.assert_array_equal(rebuilt, labels.array)


def test_kidneys_are_told_apart_where_the_patient_lies_off_centre():
    shifted = [(label, z, y, (x[0] + 22, x[1] + 22)) for label, z, y, x in (RIGHT, LEFT)]
    right, left = kidney_sides(label_map(*shifted))
    assert right.box[2] == slice(47, 72)
    assert left.box[2] == slice(132, 157)


def test_a_fragment_goes_with_the_nearer_kidney():
    right, left = kidney_sides(label_map(RIGHT, LEFT, (TUMOR, (2, 3), (40, 42), (112, 114))))
    assert right.volumes_ml["tumor"] == 0
    assert left.volumes_ml["tumor"] > 0


@pytest.mark.parametrize(("box", "title"), [(RIGHT, "Right kidney"), (LEFT, "Left kidney")])
def test_a_solitary_kidney_keeps_its_side_and_says_so(box, title):
    (kidney,) = kidney_sides(label_map(box))
    assert kidney.title == title
    assert kidney.note == "the only kidney found"


def test_a_speck_on_the_other_side_is_no_second_kidney():
    (kidney,) = kidney_sides(label_map(RIGHT, (KIDNEY, (8, 10), (40, 44), (110, 114))))
    assert kidney.title == "Right kidney"


def test_a_detached_mass_close_by_is_no_second_kidney():
    (kidney,) = kidney_sides(label_map(RIGHT, (CYST, (8, 24), (65, 79), (30, 45))))
    assert kidney.title == "Right kidney"
    assert kidney.volumes_ml["cyst"] > 5


def test_fused_kidneys_are_one_entry_that_says_so():
    (kidney,) = kidney_sides(label_map(RIGHT, LEFT, (KIDNEY, (18, 24), (40, 48), (50, 110))))
    assert kidney.title == "Both kidneys"
    assert "fused" in kidney.note


def test_a_solitary_kidney_with_a_huge_tumor_is_not_taken_for_two():
    (kidney,) = kidney_sides(label_map(RIGHT, (TUMOR, (5, 25), (20, 60), (50, 120))))
    assert kidney.title == "Right kidney"


def test_masses_alone_are_reported_too():
    (kidney,) = kidney_sides(label_map((TUMOR, (8, 24), (40, 60), (110, 135))))
    assert kidney.title == "Left kidney"
    assert kidney.volumes_ml["kidney"] == 0


def test_nothing_labelled_gives_nothing():
    assert kidney_sides(label_map()) == ()


def test_a_mass_far_from_a_solitary_kidney_is_no_second_one():
    """66 ml, 75 mm lateral to a left kidney: on the same side of the middle, so it belongs to that kidney."""
    (kidney,) = kidney_sides(label_map((KIDNEY, (8, 24), (40, 60), (90, 110)), (TUMOR, (8, 24), (40, 60), (136, 149))))
    assert (kidney.title, kidney.volumes_ml["tumor"] > 60) == ("Left kidney", True)
    assert "the only kidney found" in kidney.note
    assert kidney.body.any()
    assert not kidney.body[kidney.labels == TUMOR].any()


def test_a_large_mass_beside_two_kidneys_is_neither_of_them():
    mass = (TUMOR, (2, 28), (30, 70), (143, 158))
    right, left = kidney_sides(label_map(RIGHT, (KIDNEY, (8, 24), (40, 60), (95, 115)), mass))
    assert (right.note, left.note) == ("", "")
    assert right.volumes_ml["tumor"] == 0
    assert left.volumes_ml["tumor"] > left.volumes_ml["kidney"] > 0


def test_a_kidney_that_its_tumor_has_replaced_is_still_one():
    right, left = kidney_sides(label_map(RIGHT, (TUMOR, (5, 25), (35, 60), (110, 135))))
    assert right.note == ""
    assert "no kidney tissue is labelled" in left.note
    assert left.body[left.labels > 0].all()


def test_a_single_kidney_in_the_middle_of_the_volume_is_not_sure_of_its_side():
    (crop,) = kidney_sides(label_map((KIDNEY, (3, 12), (10, 30), (20, 42)), shape=(16, 40, 60)))
    assert "its side is not sure" in crop.note


def test_gaps_are_true_on_a_sheared_grid():
    """8 mm above the kidney, but each slice is moved by 12 mm against the one before: 20 mm away and more."""
    straight = label_map(RIGHT, LEFT, (TUMOR, (25, 26), (40, 44), (131, 135)))
    affine = np.array([[-2.0, 0, -12, 0], [0, -2, 0, 0], [0, 0, -4, 0], [0, 0, 0, 1]])
    stored = np.ascontiguousarray(straight.array.T)
    sheared = Volume.from_stored(stored, Grid(stored.shape, affine), "sheared")
    assert np.array_equal(sheared.array, straight.array)
    for labels, is_body in ((straight, True), (sheared, False)):
        _, left = kidney_sides(labels)
        assert left.body[left.labels == TUMOR].all() == is_body


@pytest.mark.parametrize(("gap", "is_body"), [(1, True), (4, True), (6, False)])
def test_pieces_belong_to_a_kidney_within_10_mm(gap, is_body):
    """Gaps of 4, 10 and 14 mm between voxel centres."""
    near = (TUMOR, (10, 14), (45, 50), (135 + gap, 140 + gap))
    _, left = kidney_sides(label_map(RIGHT, LEFT, near))
    assert left.body[left.labels == TUMOR].all() == is_body
    assert left.body[left.labels == KIDNEY].all()
    assert left.attached.any()
    assert (left.attached == TUMOR).any() == is_body
