"""Fixtures for all tests."""

from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).parents[1]

# No deadline: a busy machine is no defect. 50 examples keep the quick tests quick.
hypothesis.settings.register_profile("renalseg", deadline=None, max_examples=50)
hypothesis.settings.load_profile("renalseg")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The development data beside the checkout (real CT, KiTS23 label maps); the test is skipped where absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data (../shared/data) are not here")
    return folder
