"""What every potentiostat driver must do. A driver's test class inherits `PotentiostatContract`."""

import time
from typing import ClassVar

import numpy as np
import pytest

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import CellMode, DeviceLimits, HostLoss, Potentiostat


class PotentiostatContract:
    """The fixture `potentiostat` gives a driver that was constructed and not opened, and closes it at the end.

    `drives`: it can drive a cell; else it must refuse as read-only. `samples`: it has readings to give.
    """

    drives: ClassVar[bool] = True
    samples: ClassVar[bool] = True

    @pytest.fixture
    def potentiostat(self) -> Potentiostat:
        raise NotImplementedError

    @pytest.fixture
    def opened(self, potentiostat):
        info = potentiostat.open()
        yield potentiostat, info
        potentiostat.close()

    @staticmethod
    def read_some(potentiostat, count):
        deadline, samples = time.monotonic() + 5, []
        while len(samples) < count and time.monotonic() < deadline:
            samples += potentiostat.read(0.2)
            potentiostat.keep_alive()
        return samples

    def test_open_describes_the_device_and_leaves_the_cell_alone(self, opened):
        potentiostat, info = opened
        assert info.model and info.clock_rate > 0
        assert info.min_voltage_v <= info.max_voltage_v and info.max_current_ma >= 0
        assert (info.host_loss is HostLoss.CELL_OFF) == (info.host_loss_after_s is not None)
        if self.drives:
            assert potentiostat.mode() is CellMode.OFF

    def test_samples_come_in_order(self, opened):
        potentiostat, _ = opened
        if not self.samples:
            assert potentiostat.read(0.05) == []
            return
        samples = self.read_some(potentiostat, 3)
        assert len(samples) >= 3
        assert (np.diff([s.device_t_s for s in samples]) > 0).all()
        assert (np.diff([s.host_t_s for s in samples]) >= 0).all()
        assert all(np.isfinite(s.voltage_v) for s in samples)

    def test_a_read_ends_in_time(self, opened):
        potentiostat, _ = opened
        began = time.monotonic()
        potentiostat.read(0.05)
        assert time.monotonic() - began < 1.0

    def test_it_drives_a_current_and_says_so(self, opened):
        potentiostat, info = opened
        if not self.drives:
            self.refuses(CellReason.READ_ONLY, potentiostat.set_current, 0.0)
            return
        potentiostat.set_limits(DeviceLimits(info.min_voltage_v, info.max_voltage_v, info.max_current_ma))
        want_ma = min(0.2, info.max_current_ma)
        potentiostat.set_current(want_ma)
        assert potentiostat.mode() is CellMode.GALVANOSTATIC
        potentiostat.read(0.0)
        assert self.read_some(potentiostat, 3)[-1].current_ma == pytest.approx(want_ma, rel=0.05)

    def test_it_holds_a_voltage_and_says_so(self, opened):
        potentiostat, info = opened
        if not self.drives:
            self.refuses(CellReason.READ_ONLY, potentiostat.set_voltage, 1.0, 1.0)
            return
        want_v = self.read_some(potentiostat, 1)[-1].voltage_v
        potentiostat.set_voltage(want_v, info.max_current_ma)
        assert potentiostat.mode() is CellMode.POTENTIOSTATIC
        potentiostat.read(0.0)
        assert self.read_some(potentiostat, 3)[-1].voltage_v == pytest.approx(want_v, abs=0.01)

    def test_off_is_off(self, opened):
        potentiostat, _ = opened
        if self.drives:
            potentiostat.set_current(0.1)
        for _ in range(2):
            potentiostat.cell_off()
        if self.drives:
            assert potentiostat.mode() is CellMode.OFF
            potentiostat.read(0.0)
            last = self.read_some(potentiostat, 2)[-1]
            assert last.mode is CellMode.OFF and abs(last.current_ma) < 1e-2

    @pytest.mark.parametrize("current_ma", [1e6, -1e6, float("nan"), float("inf")])
    def test_a_current_beyond_the_range_is_refused(self, opened, current_ma):
        potentiostat, _ = opened
        self.refuses(CellReason.REFUSED if self.drives else CellReason.READ_ONLY, potentiostat.set_current, current_ma)
        if self.drives:
            assert potentiostat.mode() is CellMode.OFF

    @pytest.mark.parametrize("voltage_v, bound_ma", [(1e3, 1.0), (-1e3, 1.0), (float("nan"), 1.0), (3.0, float("nan"))])
    def test_a_voltage_beyond_the_range_is_refused(self, opened, voltage_v, bound_ma):
        potentiostat, _ = opened
        reason = CellReason.REFUSED if self.drives else CellReason.READ_ONLY
        self.refuses(reason, potentiostat.set_voltage, voltage_v, bound_ma)
        if self.drives:
            assert potentiostat.mode() is CellMode.OFF

    def test_close_may_be_repeated_or_come_first(self, potentiostat):
        potentiostat.close()
        potentiostat.open()
        for _ in range(2):
            potentiostat.close()

    def test_it_opens_again_after_close(self, potentiostat):
        potentiostat.open()
        potentiostat.close()
        potentiostat.open()
        if self.samples:
            assert self.read_some(potentiostat, 1)
        potentiostat.close()

    @staticmethod
    def refuses(reason, call, *args):
        with pytest.raises(PotentiostatError) as caught:
            call(*args)
        assert caught.value.reason is reason
