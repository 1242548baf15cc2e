import pytest
from recorder import Numbered, Recorder


@pytest.fixture
def recorder():
    return Recorder


@pytest.fixture
def numbered():
    return Numbered
