"""``fine``: windows, blending, mirror and ensemble against one direct pass."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from renalseg.predict.fine import blend_weights, fine_probability, window_starts


def noise(depth, seed=0):
    return torch.rand(1, 1, depth, 4, 6, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def mean_probability(*arguments):
    return fine_probability(*arguments)[0]


@example(depth=244, window=19, overlap=0.0625)
@given(depth=st.integers(1, 400), window=st.integers(1, 64), overlap=st.floats(0, 0.95))
def test_windows_cover_everything_and_overlap_enough(depth, window, overlap):
    starts = window_starts(depth, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, depth - window)
    steps = [b - a for a, b in pairwise(starts)]
    if steps:
        assert min(steps) >= 1
        assert max(steps) <= max(1, window * (1 - overlap)) + 1e-9
        assert max(steps) - min(steps) <= 2
        spread, parts = depth - window, len(steps)  # |start - i * spread / parts| <= 1/2, without rounding
        assert all(2 * abs(start * parts - i * spread) <= parts for i, start in enumerate(starts))


def test_the_papers_windows():
    assert window_starts(48, 48, 0.5) == [0]
    assert window_starts(49, 48, 0.5) == [0, 1]
    assert window_starts(104, 48, 0.5) == [0, 19, 37, 56]


@given(length=st.integers(1, 100))
def test_blending_is_symmetric_positive_and_highest_in_the_middle(length):
    weights = blend_weights(length)
    assert weights.shape == (length,)
    assert weights.min() > 0
    assert torch.equal(weights, weights.flip(0))
    assert (weights[: (length + 1) // 2].diff() > 0).all()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("depth", [1, 7, 8, 9, 21, 40])
def test_of_a_voxelwise_network_windows_and_mirrors_change_nothing(small_config, cpu, lines, depth, mirror):
    network, image = lines([0.0, 2.0, -1.0], [0.1, 0.0, 0.3]), noise(depth)
    probability = mean_probability(image, [network], small_config.fine, cpu, mirror)
    assert probability.shape == (3, depth, 4, 6)
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability, network(image).softmax(1)[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("depth", [5, 20])
def test_probabilities_sum_to_one(small_config, cpu, positions, depth, mirror):
    probability = mean_probability(noise(depth), [positions], small_config.fine, cpu, mirror)
    torch.testing.assert_close(probability.sum(0), torch.ones(depth, 4, 6))


def test_the_mirror_image_is_averaged(small_config, cpu, positions):
    image = noise(6)
    straight = positions(image).softmax(1)[0]
    mirrored = positions(image.flip(2)).softmax(1)[0].flip(1)
    assert (straight - mirrored).abs().max() > 0.05
    torch.testing.assert_close(mean_probability(image, [positions], small_config.fine, cpu, False), straight)
    both = mean_probability(image, [positions], small_config.fine, cpu, True)
    torch.testing.assert_close(both, (straight + mirrored) / 2)
    again = mean_probability(image.flip(2), [positions], small_config.fine, cpu, True).flip(1)
    torch.testing.assert_close(both, again)


def test_windows_are_blended_by_their_weights(small_config, cpu, positions):
    image, weights = noise(12), blend_weights(8)
    assert window_starts(12, 8, 0.5) == [0, 4]
    first, last = (positions(image[:, :, z : z + 8]).softmax(1)[0] for z in (0, 4))
    expected = torch.cat(
        [
            first[:, :4],
            *((first[:, [z]] * weights[z] + last[:, [z - 4]] * weights[z - 4]) / 5 for z in range(4, 8)),
            last[:, 4:],
        ],
        1,
    )
    torch.testing.assert_close(mean_probability(image, [positions], small_config.fine, cpu, False), expected)


def test_several_networks_are_averaged(small_config, cpu, positions, lines):
    image, other = noise(12), lines([0.0, 2.0, -1.0], [0.1, 0.0, 0.3])
    each = [mean_probability(image, [n], small_config.fine, cpu, True) for n in (positions, other)]
    both = mean_probability(image, [positions, other], small_config.fine, cpu, True)
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)


def test_how_the_mirrors_agree_is_counted(small_config, cpu, positions):
    """One window: each voxel counts with its class in the image and in the mirror, weighted like the mean."""
    image, inside = noise(6), torch.rand(6, 4, 6, generator=torch.Generator().manual_seed(1)) > 0.4
    straight = positions(image).argmax(1)[0]
    mirrored = positions(image.flip(2)).argmax(1)[0].flip(0)
    _, table = fine_probability(image, [positions], small_config.fine, cpu, True, inside)
    expected = [[((straight == i) & (mirrored == j) & inside).sum().item() for j in range(3)] for i in range(3)]
    assert sum(expected[i][j] for i in range(3) for j in range(3) if i != j) > 0
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float32))
    _, back = fine_probability(image.flip(2), [positions], small_config.fine, cpu, True, inside.flip(0))
    torch.testing.assert_close(back, table.T)


@pytest.mark.parametrize("depth", [5, 21])
def test_every_voxel_counts_once_however_many_windows(small_config, cpu, positions, depth):
    _, table = fine_probability(noise(depth), [positions], small_config.fine, cpu, True)
    assert table.sum().item() == pytest.approx(depth * 4 * 6)


def test_a_network_that_sees_no_direction_agrees_with_its_mirror(small_config, cpu, lines):
    _, table = fine_probability(noise(21), [lines([0.0, 2.0, -1.0], [0.1, 0.0, 0.3])], small_config.fine, cpu, True)
    assert table.diag().sum().item() == pytest.approx(table.sum().item())


class Counted(torch.nn.Module):
    """Notes the batch and the slices of each call."""

    def __init__(self, network):
        super().__init__()
        self.network, self.calls = network, []

    def forward(self, image):
        self.calls.append((image.shape[0], image.shape[2]))
        return self.network(image)


def test_windows_where_nothing_matters_are_left_out(small_config, cpu, positions):
    image, inside, network = noise(40), torch.zeros(40, 4, 6, dtype=torch.bool), Counted(positions)
    inside[14, 2, 3] = True
    assert window_starts(40, 8, 0.5) == list(range(0, 36, 4))
    found, _ = fine_probability(image, [network], small_config.fine, cpu, False, inside)
    assert network.calls == [(1, 8), (1, 8)]  # those from 8 and from 12
    everywhere = mean_probability(image, [positions], small_config.fine, cpu, False)
    torch.testing.assert_close(found[:, 12:16], everywhere[:, 12:16])
    for part in (found[:, :8], found[:, 20:]):
        assert (part[0] == 1).all()
        assert (part[1:] == 0).all()


def test_the_mirror_goes_along_on_a_cpu_and_alone_on_a_device(small_config, cpu, elsewhere, positions):
    results = []
    for runtime, calls in ((cpu, [(2, 6)]), (elsewhere, [(1, 6), (1, 6)])):
        network = Counted(positions)
        results.append(mean_probability(noise(6), [network], small_config.fine, runtime, True))
        assert network.calls == calls
    torch.testing.assert_close(*results)


def test_without_a_mirror_there_is_nothing_to_compare(small_config, cpu, positions):
    assert fine_probability(noise(6), [positions], small_config.fine, cpu, False)[1] is None
