import pytest

from tests.daemon.runs.rig import FakeEngine, scene


@pytest.fixture(scope="module")
def pictures():
    return scene()


@pytest.fixture
def engine(pictures):
    return FakeEngine(pictures)
