import os

import pytest

from renalseg.core.errors import InputError
from renalseg.core.processes import spread


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers):
    assert list(spread(abs, [-3, 1, -2], workers)) == [3, 1, 2]


def test_a_process_that_is_ended_from_outside_is_told_in_one_sentence():
    with pytest.raises(InputError, match=r"one of 2 worker processes was ended from outside.*use fewer workers"):
        list(spread(os._exit, [1, 1], 2))
