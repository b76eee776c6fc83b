import time

import pytest

import hw.potentiostat
from hw.drivers import DriverError, build_driver
from tests.hw.potentiostat.contract_tests import PotentiostatContract


class TestContract(PotentiostatContract):
    drives = False
    samples = False

    @pytest.fixture
    def potentiostat(self):
        one = build_driver(hw.potentiostat.DRIVERS, "none", {})
        yield one
        one.close()


def test_read_waits_as_long_as_asked():
    one = build_driver(hw.potentiostat.DRIVERS, "none", {})
    one.open()
    began = time.monotonic()
    assert one.read(0.12) == []
    assert time.monotonic() - began >= 0.12
    one.close()


def test_it_has_no_options():
    with pytest.raises(DriverError, match="speed"):
        build_driver(hw.potentiostat.DRIVERS, "none", {"speed": 1})
