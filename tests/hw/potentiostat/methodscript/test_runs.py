from __future__ import annotations

import math

import pytest

from hw.potentiostat.contract import CellMode
from hw.potentiostat.methodscript.packets import parse_packet
from hw.potentiostat.methodscript.runs import Clock, Run, found_mode
from hw.potentiostat.methodscript.scripts import Ended, Window
from hw.twin.methodscript.values import encode

WINDOW = Window(2.5, 4.2, 10.0)


def packet(**values):
    return parse_packet("P" + ";".join(encode(kind, number) for kind, number in values.items()))


def test_a_reading_becomes_a_sample():
    sample = Run(CellMode.GALVANOSTATIC, WINDOW).sample(packet(eb=1.5, ab=3.9, ba=0.0003, db=0.0003), 100.0, Clock(1.0))
    assert sample.device_t_s == 0.0 and sample.host_t_s == 100.0 and sample.mode is CellMode.GALVANOSTATIC
    assert sample.voltage_v == pytest.approx(3.9) and sample.current_ma == pytest.approx(0.3) and not sample.stopped_by


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        (2, "max_voltage_v = 4.2"),
        (3, "min_voltage_v = 2.5"),
        (4, "max_current_ma = 10"),
        (9, "no number"),
        (77, "no number"),
    ],
)
def test_last_words_name_the_limit(flag, says):
    run = Run(CellMode.GALVANOSTATIC, WINDOW)
    assert says in run.sample(packet(eb=2.0, ab=4.21, ba=0.001, db=0.001, ja=flag), 1.0, Clock(1.0)).stopped_by


@pytest.mark.parametrize("flag", [Ended.TIME, Ended.CHARGE, Ended.STEP_VOLTAGE, Ended.STEP_CURRENT])
def test_ends_of_steps_are_no_limits(flag):
    run = Run(CellMode.GALVANOSTATIC, WINDOW)
    sample = run.sample(packet(eb=2.0, ab=4.0, ba=0.001, db=0.001, ja=flag.value), 1.0, Clock(1.0))
    assert sample is not None and not sample.stopped_by and run.ended is flag


def test_last_words_of_an_aborted_script_are_no_sample():
    run = Run(CellMode.GALVANOSTATIC, WINDOW)
    assert run.sample(packet(eb=2.0, ab=4.0, ba=0.001, ja=0), 1.0, Clock(1.0)) is None
    assert run.ended is Ended.ABORTED


def test_packages_without_a_reading_are_none():
    run = Run(CellMode.OFF, WINDOW)
    assert run.sample(packet(eb=2.0), 1.0, Clock(1.0)) is None
    assert run.sample(packet(ab=3.0), 1.0, Clock(1.0)) is None
    stranger = Run(CellMode.GALVANOSTATIC, WINDOW, ours=False)
    assert stranger.sample(packet(ab=3.0), 1.0, Clock(1.0)).voltage_v == 3.0


def test_a_clock_goes_on_from_script_to_script():
    clock = Clock(60.0)
    stamps = [clock.stamp(t_s, host_t_s) for t_s, host_t_s in ((3.0, 10.0), (6.0, 10.05))]
    clock.begin()
    stamps += [clock.stamp(t_s, host_t_s) for t_s, host_t_s in ((3.0, 10.25), (6.0, 10.3))]
    assert stamps == pytest.approx([0.0, 3.0, 15.0, 18.0])
    clock.begin()
    assert clock.stamp(0.0, 10.3) > 18.0  # two packages that come together keep their order
    assert math.isnan(clock.stamp(math.nan, 11.0))
    clock.begin()
    assert math.isfinite(clock.stamp(0.0, 12.0))


def test_what_a_running_script_shows():
    assert found_mode([packet(eb=1.0, ab=3.0)]) is CellMode.OFF
    assert found_mode([packet(eb=1.0, ab=3.0, ba=0.1, db=0.1)]) is CellMode.GALVANOSTATIC
    assert found_mode([packet(eb=1.0, ab=3.0, ba=0.1, da=3.0)]) is CellMode.POTENTIOSTATIC
    assert found_mode([]) is CellMode.GALVANOSTATIC
    assert found_mode([packet(cc=1.0)]) is CellMode.GALVANOSTATIC
