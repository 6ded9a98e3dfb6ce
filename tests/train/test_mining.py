import json

import numpy as np

from renalseg.train.mining import MOMENTUM, RunningLoss, draw_order


def order(running, left_out, seed):
    return draw_order(running, left_out, np.random.default_rng(seed))


def test_without_mining_every_case_is_drawn_once_in_an_order_of_its_seed():
    running = RunningLoss(10, [0.1 * i for i in range(10)])
    assert sorted(order(running, 0.0, 1)) == list(range(10))
    assert order(running, 0.0, 1) == order(running, 0.0, 1) != order(running, 0.0, 2)


def test_hard_cases_are_drawn_more_often_and_none_twice():
    running = RunningLoss(10, [0.1] * 5 + [1.0] * 5)
    epochs = [order(running, 0.3, seed) for seed in range(400)]
    assert all(len(drawn) == len(set(drawn)) == 7 for drawn in epochs)
    times = np.bincount(np.concatenate(epochs), minlength=10) / 400
    assert times[5:].min() > 0.9
    assert times[:5].max() < 0.6
    assert times[:5].min() > 0.2  # an easy case is not forgotten
    places = np.mean([np.mean([drawn.index(c) for c in drawn if c >= 5]) for drawn in epochs])
    assert abs(places - 3) < 0.3  # hard ones do not come first


def test_equal_losses_are_drawn_equally():
    times = np.bincount(np.concatenate([order(RunningLoss(8, [0.5] * 8), 0.5, s) for s in range(600)]), minlength=8)
    assert times.min() > 240
    assert times.max() < 360


def test_a_case_that_was_never_seen_counts_as_the_hardest():
    running = RunningLoss(4, [None, 0.01, 0.01, 5.0])
    times = np.bincount(np.concatenate([order(running, 0.5, s) for s in range(200)]), minlength=4)
    assert times[0] > 180
    assert times[3] > 180
    assert sorted(order(RunningLoss(4), 0.0, 0)) == [0, 1, 2, 3]
    assert len(order(RunningLoss(4), 0.5, 0)) == 2


def test_the_running_loss_moves_and_survives_json():
    running = RunningLoss(3)
    running.update(np.array([1.0, np.nan, 3.0]))
    assert running.as_list() == [1.0, None, 3.0]
    running.update(np.array([2.0, 0.1 + 0.2, np.nan]))
    assert running.as_list() == [
        MOMENTUM + 2 * (1 - MOMENTUM),
        MOMENTUM * (0.1 + 0.2) + (1 - MOMENTUM) * (0.1 + 0.2),
        3,
    ]
    again = RunningLoss(3, json.loads(json.dumps(running.as_list())))
    np.testing.assert_array_equal(again.values, running.values)
