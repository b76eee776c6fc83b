from itertools import pairwise

import pytest

from hw.potentiostat.contract import CellMode
from hw.potentiostat.keithley.readings import Readings


def add(readings: Readings, relative_s: float, host_s: float) -> None:
    readings.add(3.7, 0.5, relative_s, host_s, CellMode.GALVANOSTATIC)


def test_times_go_on_when_the_buffer_is_cleared() -> None:
    readings = Readings()
    for k in range(3):
        add(readings, 0.1 * k, 50.0 + 0.1 * k)
    readings.cleared()
    assert readings.fetched == 0
    for k in range(3):
        add(readings, 0.1 * k, 50.5 + 0.1 * k)
    samples = readings.take()
    steps = [b.device_t_s - a.device_t_s for a, b in pairwise(samples)]
    assert steps == pytest.approx([0.1, 0.1, 0.3, 0.1, 0.1])
    assert readings.take() == []


def test_neither_clock_goes_back() -> None:
    readings = Readings()
    for relative_s, host_s in ((0.0, 50.0), (0.2, 50.2), (0.1, 49.0), (0.3, 50.3)):
        add(readings, relative_s, host_s)
    samples = readings.take()
    assert all(b.device_t_s > a.device_t_s and b.host_t_s >= a.host_t_s for a, b in pairwise(samples))
