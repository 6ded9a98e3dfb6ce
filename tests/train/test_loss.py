import numpy as np
import pytest
import torch

from renalseg.config import Training
from renalseg.train.loss import dice_ce, mixed_target, one_hot
from renalseg.train.prepare import IGNORE

SHAPE = (3, 4, 5)


def settings(**changes):
    values = {"patch": SHAPE, "epochs": 1, "class_weights": (1.0, 2.0, 3.0), "dice_weight": 0.7, "ce_weight": 1.3}
    values["hard_voxels"] = 1.0
    return Training(**(values | changes))


def draw(seed=0, n=2, classes=3, ignored=0.2):
    generator = np.random.default_rng(seed)
    target = generator.integers(0, classes, (n, *SHAPE))
    target[generator.random(target.shape) < ignored] = IGNORE
    return generator.normal(0, 2, (n, classes, *SHAPE)).astype(np.float32), target


def loss(logits, target, config):
    return dice_ce(torch.as_tensor(logits), torch.as_tensor(target), config).numpy()


def plain(logits, target, config):
    """The same in plain loops, in float64."""
    losses = []
    for sample, truth in zip(logits.astype(np.float64), target, strict=True):
        counted = truth != IGNORE
        z, truth = sample[:, counted], truth[counted]
        p = np.exp(z) / np.exp(z).sum(0)
        weights = config.class_weights
        each = [(-np.log(p[t, i]) * weights[t], weights[t]) for i, t in enumerate(truth)]
        each = sorted(each, reverse=True)[: max(1, int(config.hard_voxels * len(each)))]
        ce = sum(loss for loss, _ in each) / sum(weight for _, weight in each)
        dices, present = [], []
        for c, weight in enumerate(weights):
            if (truth == c).any():
                dices.append(weight * 2 * p[c, truth == c].sum() / (p[c].sum() + (truth == c).sum()))
                present.append(weight)
        losses.append(config.dice_weight * (1 - sum(dices) / sum(present)) + config.ce_weight * ce)
    return losses


@pytest.mark.parametrize("hard", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_plain_loops(seed, hard):
    logits, target = draw(seed)
    config = settings(hard_voxels=hard)
    np.testing.assert_allclose(loss(logits, target, config), plain(logits, target, config), rtol=1e-5)


def test_no_value_is_read_back_from_the_device():
    """On the meta device, which holds no values, whatever a GPU would have to be awaited for is an error."""
    logits, target = (torch.as_tensor(a).to("meta") for a in draw())
    shares = mixed_target(target, target, [0.3, 0.6], 3)
    for truth in (target, shares):
        assert dice_ce(logits, truth, settings(hard_voxels=0.5)).shape == (2,)
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool((target == IGNORE).any())


def test_hard_voxels_are_the_ones_that_learn():
    logits, target = draw(ignored=0.0)
    config = settings(dice_weight=0.0, class_weights=(1.0, 1.0, 1.0), hard_voxels=0.25)
    leaf = torch.tensor(logits, requires_grad=True)
    values = dice_ce(leaf, torch.as_tensor(target), config)
    values.sum().backward()
    assert (values.detach().numpy() > loss(logits, target, settings(dice_weight=0.0, class_weights=(1.0,) * 3))).all()
    learns = (leaf.grad.abs().sum(1) > 0).numpy()
    each = torch.nn.functional.cross_entropy(torch.as_tensor(logits), torch.as_tensor(target), reduction="none").numpy()
    for sample in range(2):
        assert learns[sample].sum() == int(0.25 * learns[sample].size)
        assert each[sample][learns[sample]].min() >= each[sample][~learns[sample]].max()


def test_a_mixed_target_of_weight_1_is_the_target_itself():
    logits, target = draw()
    other = draw(1)[1]
    pair = torch.as_tensor(target), torch.as_tensor(other)
    for hard in (1.0, 0.3):
        config = settings(hard_voxels=hard)
        whole = dice_ce(torch.as_tensor(logits), mixed_target(*pair, [1.0, 1.0], 3), config)
        np.testing.assert_allclose(whole.numpy(), loss(logits, target, config), rtol=1e-6)


def test_mixed_cross_entropy_is_the_mean_of_both_by_weight():
    logits, target = draw(ignored=0.0)
    other = draw(1, ignored=0.0)[1]
    config = settings(dice_weight=0.0, ce_weight=1.0, class_weights=(1.0, 1.0, 1.0))
    mixed = mixed_target(torch.as_tensor(target), torch.as_tensor(other), [0.7, 0.6], 3)
    found = dice_ce(torch.as_tensor(logits), mixed, config).numpy()
    weight = np.array([0.7, 0.6])
    expected = weight * loss(logits, target, config) + (1 - weight) * loss(logits, other, config)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_voxel_that_one_of_two_ignores_has_the_weight_of_the_other():
    target = torch.tensor([[[[0, IGNORE, 1, IGNORE]]]])
    other = torch.tensor([[[[0, 1, IGNORE, IGNORE]]]])
    shares = mixed_target(target, other, [0.75], 3)
    np.testing.assert_allclose(shares.sum(1)[0, 0, 0], [1.0, 0.25, 0.75, 0.0])
    assert torch.equal(one_hot(target, 3).sum(1) > 0, target != IGNORE)


def test_ignored_voxels_change_neither_value_nor_gradient():
    logits, target = draw()
    ignored = target == IGNORE
    other = logits.copy()
    other.transpose(0, 2, 3, 4, 1)[ignored] += 40.0
    gradients = []
    for values in (logits, other):
        leaf = torch.tensor(values, requires_grad=True)
        dice_ce(leaf, torch.as_tensor(target), settings()).sum().backward()
        gradients.append(leaf.grad.numpy().transpose(0, 2, 3, 4, 1))
    np.testing.assert_array_equal(loss(logits, target, settings()), loss(other, target, settings()))
    np.testing.assert_array_equal(*gradients)
    assert (gradients[0][ignored] == 0).all()
    assert (gradients[0][~ignored] != 0).all()


def test_a_sample_that_is_ignored_whole_is_finite_and_teaches_nothing():
    logits, target = draw()
    target[1] = IGNORE
    leaf = torch.tensor(logits, requires_grad=True)
    values = dice_ce(leaf, torch.as_tensor(target), settings())
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert (leaf.grad[1] == 0).all()


def test_padding_with_ignored_slices_changes_nothing():
    logits, target = draw()
    padded = np.concatenate([logits, np.full_like(logits, 3.0)], axis=2)
    target_padded = np.concatenate([target, np.full_like(target, IGNORE)], axis=1)
    np.testing.assert_allclose(loss(padded, target_padded, settings()), loss(logits, target, settings()), rtol=1e-6)


def test_a_class_that_is_absent_contributes_no_dice():
    logits, target = draw()
    target[target == 2] = 0
    heavy = settings(ce_weight=0.0, class_weights=(1.0, 2.0, 100.0))
    np.testing.assert_array_equal(loss(logits, target, heavy), loss(logits, target, settings(ce_weight=0.0)))
    np.testing.assert_allclose(loss(logits, target, heavy), plain(logits, target, heavy), rtol=1e-5)


def test_the_weights_of_terms_and_classes_count():
    logits, target = draw()
    dice = loss(logits, target, settings(dice_weight=1.0, ce_weight=0.0))
    ce = loss(logits, target, settings(dice_weight=0.0, ce_weight=1.0))
    both = loss(logits, target, settings(dice_weight=2.0, ce_weight=0.5))
    np.testing.assert_allclose(both, 2 * dice + 0.5 * ce, rtol=1e-6)
    assert (loss(logits, target, settings(class_weights=(1.0, 1.0, 1.0))) != both).all()


def test_a_perfect_prediction_costs_nearly_nothing_and_a_wrong_one_much():
    _, target = draw(ignored=0.0)
    one_hot = np.eye(3, dtype=np.float32)[target].transpose(0, 4, 1, 2, 3)
    assert (loss(one_hot * 30, target, settings()) < 1e-4).all()
    assert (loss(one_hot[:, [1, 2, 0]] * 30, target, settings()) > 10).all()


def test_half_precision_logits_are_summed_in_float32():
    logits, target = draw()
    half = torch.as_tensor(logits).half()
    value = dice_ce(half, torch.as_tensor(target), settings())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, dice_ce(half.float(), torch.as_tensor(target), settings()))
