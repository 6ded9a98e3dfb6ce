"""``Grid`` and ``Volume``: what is refused, orientation, and the way back."""

import itertools
import pickle

import nibabel.orientations as nio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from renalseg.core.errors import GeometryError, InputError, RenalsegError
from renalseg.core.volume import Grid, Volume, spacing_of

ORIENTATIONS = [
    "".join(axes) for order in itertools.permutations(("RL", "AP", "SI")) for axes in itertools.product(*order)
]


@pytest.fixture
def volume() -> Volume:
    return Volume.from_array(np.arange(60, dtype=np.int16).reshape(3, 4, 5), (2.5, 0.8, 0.7), "case")


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_has_one_canonical_array(codes, volume):
    turn = nio.ornt_transform(nio.io_orientation(volume.grid.affine), nio.axcodes2ornt(tuple(codes)))
    stored = nio.apply_orientation(volume.array, turn)
    affine = volume.grid.affine @ nio.inv_ornt_aff(turn, volume.grid.shape)
    assert "".join(nio.aff2axcodes(affine)) == codes
    turned = Volume.from_stored(stored, Grid(stored.shape, affine))
    np.testing.assert_array_equal(turned.array, volume.array)
    assert nio.aff2axcodes(turned.affine) == ("I", "P", "L")
    assert turned.same_grid(volume)
    np.testing.assert_array_equal(turned.stored(), stored)


@given(
    matrix=hnp.arrays(np.float64, (3, 3), elements=st.floats(-1, 1)),
    spacing=st.tuples(*[st.floats(0.06, 45.0)] * 3),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_any_usable_affine_goes_there_and_back(matrix, spacing, shape):
    lengths = np.linalg.norm(matrix, axis=0)
    if lengths.min() < 1e-3 or abs(np.linalg.det(matrix / lengths)) < 0.05:
        return
    affine = np.eye(4)
    affine[:3, :3] = matrix / lengths * np.array(spacing)
    array = np.arange(np.prod(shape)).reshape(shape)
    volume = Volume.from_stored(array, Grid(shape, affine))
    np.testing.assert_array_equal(volume.stored(), array)
    assert sorted(volume.spacing_mm) == pytest.approx(sorted(spacing))
    assert volume.voxel_mm3 == pytest.approx(abs(np.linalg.det(affine)))
    index = np.array([n - 1 for n in shape])
    value = array[tuple(index)]
    (canonical,) = np.argwhere(volume.array == value)
    np.testing.assert_allclose(volume.affine @ [*canonical, 1], affine @ [*index, 1], atol=1e-9)


def test_spacing_follows_z_y_x(volume):
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert volume.shape == (3, 4, 5)
    assert volume.voxel_mm3 == pytest.approx(2.5 * 0.8 * 0.7)


def test_z_grows_down_y_back_x_left(volume):
    origin = volume.affine @ [0, 0, 0, 1]
    np.testing.assert_allclose(volume.affine @ [1, 0, 0, 1] - origin, [0, 0, -2.5, 0])
    np.testing.assert_allclose(volume.affine @ [0, 1, 0, 1] - origin, [0, -0.8, 0, 0])
    np.testing.assert_allclose(volume.affine @ [0, 0, 1, 1] - origin, [-0.7, 0, 0, 0])


def test_with_array_keeps_the_grid(volume):
    labels = volume.with_array(np.ones((3, 4, 5), np.uint8))
    assert labels.same_grid(volume)
    assert (labels.grid, labels.name) == (volume.grid, "case")
    with pytest.raises(GeometryError, match=r"case: .*\(3, 4, 6\).*\(3, 4, 5\)"):
        volume.with_array(np.ones((3, 4, 6), np.uint8))


def test_same_grid(volume):
    moved = volume.grid.affine.copy()
    moved[0, 3] += 0.01
    other = Volume.from_stored(volume.array, Grid((3, 4, 5), moved))
    assert not volume.same_grid(other)
    assert volume.same_grid(other, tolerance_mm=0.02)
    assert not volume.same_grid(Volume.from_array(volume.array, (2.5, 0.8, 0.75)))
    assert not volume.same_grid(Volume.from_array(np.zeros((3, 4, 6)), (2.5, 0.8, 0.7)))


@pytest.mark.parametrize(
    ("affine", "part"),
    [
        (np.eye(3), "4 x 4"),
        (np.full((4, 4), np.nan), "finite"),
        (np.diag([0.0, 1, 1, 1]), "not plausible"),
        (np.diag([0.01, 1, 1, 1]), "not plausible"),
        (np.diag([1, 1, 80.0, 1]), "not plausible"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_unusable_affines(affine, part):
    with pytest.raises(GeometryError, match=part):
        Grid((2, 2, 2), affine)


def test_negative_axes_are_usable():
    assert Grid((2, 2, 2), np.diag([-1.0, -1.0, 3.0, 1.0])).shape == (2, 2, 2)


def test_shapes_must_agree():
    with pytest.raises(GeometryError, match=r"\(2, 2, 3\)"):
        Volume.from_stored(np.zeros((2, 2, 3)), Grid((2, 2, 2), np.eye(4)))
    with pytest.raises(GeometryError, match="2 dimensions"):
        Volume.from_array(np.zeros((2, 2)), (1, 1, 1))


def test_spacing_of_a_sheared_affine():
    affine = np.eye(4)
    affine[1, 2] = 0.75
    assert spacing_of(affine) == pytest.approx((1, 1, 1.25))


def test_volumes_can_be_sent_to_workers(volume):
    copy = pickle.loads(pickle.dumps(volume))
    assert copy.same_grid(volume)
    np.testing.assert_array_equal(copy.array, volume.array)


def test_geometry_errors_are_input_errors_with_exit_code_2():
    assert issubclass(GeometryError, InputError)
    assert RenalsegError.exit_code == GeometryError.exit_code == 2
