import numpy as np
import pytest
from scipy import stats

from renalseg.evaluate.bootstrap import mean_interval
from renalseg.evaluate.metrics import CaseMetrics
from renalseg.evaluate.tables import CohortResult


@pytest.mark.parametrize("draw", ["beta", "uniform"])
def test_agrees_with_scipy(draw):
    generator = np.random.default_rng(1)
    rows = generator.beta(8, 2, (60, 3)) if draw == "beta" else generator.uniform(size=(60, 3))
    ours = mean_interval(rows)
    reference = stats.bootstrap(
        (rows,), np.mean, axis=0, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    # An end of the interval is known to a few hundredths of the standard error of the mean, from 10000 draws.
    error = rows.std(axis=0) / np.sqrt(len(rows))
    assert (np.abs(ours - np.stack(reference)) < 0.12 * error).all()


def test_about_95_of_100_intervals_hold_the_true_mean():
    generator = np.random.default_rng(3)
    samples = generator.normal(0.8, 0.1, (500, 50))
    hits = [low[0] <= 0.8 <= high[0] for low, high in (mean_interval(s[:, None], resamples=1000) for s in samples)]
    assert 0.91 < np.mean(hits) < 0.97  # a little under 0.95 for 50 cases; the simulation's own error is 0.01


def test_another_confidence():
    rows = np.random.default_rng(4).normal(size=(400, 1))
    low, high = mean_interval(rows, confidence=0.68)
    assert (high - low)[0] / 2 == pytest.approx(rows.std() / 20, rel=0.05)


def test_one_case_is_its_own_interval():
    values = (0.1, 0.2, 1 / 3, 0.4, 0.5, 1.0)
    assert mean_interval(np.array([values])).tolist() == [list(values)] * 2
    result = CohortResult((CaseMetrics.from_row("one", values),))
    assert [end.row for end in result.interval] == [values, values]


def test_equal_scores_give_equal_intervals_and_bound_the_mean():
    rows = np.random.default_rng(5).uniform(size=(500, 6))  # more than one round of draws
    first = mean_interval(rows)
    np.testing.assert_array_equal(first, mean_interval(rows))
    assert not np.array_equal(first, mean_interval(rows, seed=1))
    assert (first[0] < rows.mean(axis=0)).all()
    assert (rows.mean(axis=0) < first[1]).all()
