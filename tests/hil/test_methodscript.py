"""The MethodSCRIPT driver over an emulated USB bus, down to the transfers: class CDC-ACM and an FTDI chip."""

from __future__ import annotations

import gc
import itertools
import time

import pytest

import hw.potentiostat
from hw.drivers import build_driver
from hw.errors import CellReason, InstrumentError, PotentiostatError, UsbReason
from hw.potentiostat.contract import CellMode, DeviceLimits
from tests.hw.potentiostat.contract_tests import PotentiostatContract

SMALL = {"particles": 6, "height_px": 120, "width_px": 160}
KINDS = ("methodscript-cdc", "methodscript-ftdi")


def driver(**options):
    return build_driver(hw.potentiostat.DRIVERS, "methodscript", options)


@pytest.fixture(params=KINDS)
def plugged(bus, request):
    """The bus with one device, `one`."""
    drivers = {0: "cdc_acm", 1: "cdc_acm"} if request.param == "methodscript-cdc" else {0: "ftdi_sio"}
    bus.plug("one", request.param, drivers=drivers, **SMALL)
    yield bus
    gc.collect()


class TestContract(PotentiostatContract):
    @pytest.fixture
    def potentiostat(self, plugged):
        one = driver()
        yield one
        one.close()


@pytest.fixture
def opened(plugged):
    one = driver()
    one.open()
    one.set_limits(DeviceLimits(2.5, 4.3, 10.0))
    yield one
    one.close()


def test_the_link_is_set_up(plugged, opened):
    state = plugged.state("one")
    if "baud" in state:
        assert state["baud"] == 921600 and state["lines"] == 3
    else:
        assert state["requests"]["3"] == [0x8003, 0] and state["requests"]["4"] == [8, 0]
        assert state["requests"]["2"] == [0, 0x0100] and state["requests"]["9"] == [2, 0]


def test_a_charge_and_its_end(plugged, opened):
    opened.set_current(0.3)
    samples, until = [], time.monotonic() + 1.0
    while time.monotonic() < until:
        samples += opened.read(0.1)
    driven = [sample for sample in samples if sample.mode is CellMode.GALVANOSTATIC]
    assert len(driven) >= 7 and driven[-1].current_ma == pytest.approx(0.3, abs=0.001)
    steps = [b.device_t_s - a.device_t_s for a, b in itertools.pairwise(driven)]
    assert max(steps) < 0.11 and min(steps) > 0.09
    opened.cell_off()
    assert not plugged.state("one")["cell_on"]


def test_unplugged_while_it_drives(plugged, opened):
    opened.set_current(0.3)
    plugged.unplug("one")
    with pytest.raises(PotentiostatError) as caught:
        for _ in range(20):
            opened.read(0.1)
    assert caught.value.reason is CellReason.UNPLUGGED
    opened.close()
    plugged.plug("one")
    again = driver()
    again.open()
    assert again.mode() is CellMode.OFF and again.read(0.5)
    again.close()


def test_a_stalled_endpoint_is_told(plugged, opened):
    plugged.inject("one", "usb.error", endpoint=0x81, times=50)
    with pytest.raises(PotentiostatError):
        for _ in range(20):
            opened.read(0.1)


def test_a_device_that_takes_nothing_is_stalled(plugged, opened):
    out = 0x01 if "baud" in plugged.state("one") else 0x02
    plugged.inject("one", "usb.nak", endpoint=out, seconds=5.0)
    with pytest.raises(PotentiostatError) as caught:
        opened.set_current(0.3)
    assert caught.value.reason in (CellReason.STALLED, CellReason.IN_DOUBT)


def test_nothing_there_and_more_than_one(bus):
    with pytest.raises(PotentiostatError) as caught:
        driver().open()
    assert caught.value.reason is CellReason.NOT_FOUND
    bus.plug("one", KINDS[0], serial="A", **SMALL)
    bus.plug("two", KINDS[1], serial="B", **SMALL)
    with pytest.raises(PotentiostatError) as caught:
        driver().open()
    assert "'A', 'B'" in caught.value.detail
    one = driver(serial="B")
    assert one.open().serial == "B"
    one.close()


def test_held_by_another(plugged, opened):
    with pytest.raises(InstrumentError) as caught:
        driver().open()
    assert caught.value.reason is UsbReason.BUSY


def test_a_strangers_script_is_found_and_switched_off(plugged):
    plugged.inject("one", "dirty")
    one = driver()
    one.open()
    assert one.mode() is CellMode.GALVANOSTATIC
    one.cell_off()
    assert not plugged.state("one")["cell_on"]
    one.close()
