"""Two watchers of the potentiostat itself: does its clock run, and does it do what it was told. Both pure."""

from __future__ import annotations

import math

from hw.potentiostat.contract import CellMode, CellSample

SLOWEST_SHARE = 0.1  # of the stated rate: a simulated cell on a loaded machine lags, a real one never
WRONG_SAMPLES = 3  # one or two may have been under way when the command took effect
EXCESS_SHARE = 0.5
EXCESS_RANGE_SHARE = 0.01  # of the device's range: offset of a current reading near zero


class ClockGuard:
    """Notices a device clock that stands still or creeps while the host's runs on.

    Two windows in a row must say so: when the host was held up, the first sample read after it is an old one, and those
    that follow make up for it.
    """

    def __init__(self, clock_rate: float, deadline_s: float) -> None:
        self._rate = clock_rate if clock_rate > 0 else 1.0
        self._window_s = deadline_s / 4  # a stop is noticed within one deadline wherever in a window it falls
        self.restart()

    def restart(self) -> None:
        """Forget what was seen; the next sample begins anew."""
        self._begin: tuple[float, float] | None = None
        self._highest_s, self._doubted = -math.inf, False

    def feed(self, device_t_s: float, now_s: float) -> str | None:
        """Take a sample's stamp at `now_s` (`time.monotonic()`); a sentence when the clock is not to be trusted."""
        self._highest_s = max(self._highest_s, device_t_s)
        if self._begin is None:
            self._begin = (self._highest_s, now_s)
            return None
        passed_s = now_s - self._begin[1]
        if passed_s < self._window_s:
            return None
        advanced_s = self._highest_s - self._begin[0]
        slow, doubted = advanced_s < SLOWEST_SHARE * self._rate * passed_s, self._doubted
        if slow and doubted:
            return f"its clock advanced by {advanced_s:.3g} s while {passed_s * self._rate:.3g} s should have passed"
        self._begin, self._doubted = (self._highest_s, now_s), slow
        return None


class ObedienceGuard:
    """Notices samples that contradict the last command for longer than a command takes to settle."""

    def __init__(self, range_ma: float, grace_s: float) -> None:
        self._slack_ma = EXCESS_RANGE_SHARE * range_ma
        self._grace_s = grace_s
        self.expect(CellMode.OFF, 0.0, -math.inf)

    def expect(self, mode: CellMode, current_ma: float, host_t_s: float) -> None:
        """From `host_t_s` on the cell is in `mode`; `current_ma` matters in galvanostatic mode only."""
        self._mode, self._current_ma, self._since_s = mode, current_ma, host_t_s
        self._obeyed: CellSample | None = None
        self._wrong = 0
        self._wrong_since_s = math.inf

    def feed(self, sample: CellSample) -> str | None:
        """A sentence once samples have been wrong for longer than the grace."""
        if sample.host_t_s <= self._since_s:
            return None
        wrong = self._contradiction(sample)
        if wrong is None:
            self._wrong, self._wrong_since_s = 0, math.inf
            self._obeyed = sample
            return None
        self._wrong += 1
        self._wrong_since_s = min(self._wrong_since_s, sample.host_t_s)
        lasting = sample.host_t_s - self._wrong_since_s >= self._grace_s
        return wrong if lasting and self._wrong >= WRONG_SAMPLES else None

    def gave_up(self, sample: CellSample) -> CellSample | None:
        """The last sample that obeyed the command, when this one shows that the device switched off by itself."""
        off = self._mode is not CellMode.OFF and sample.mode is CellMode.OFF and sample.host_t_s > self._since_s
        return self._obeyed if off else None

    def _contradiction(self, sample: CellSample) -> str | None:
        if sample.mode is not self._mode:
            return f"it reports mode '{sample.mode}' when told '{self._mode}'"
        if self._mode is CellMode.OFF and abs(sample.current_ma) > self._slack_ma:
            return f"{sample.current_ma:.4g} mA flow at open circuit"
        if self._mode is not CellMode.GALVANOSTATIC:
            return None
        wanted, found = self._current_ma, sample.current_ma
        excess = abs(found) > (1 + EXCESS_SHARE) * abs(wanted) + self._slack_ma
        backwards = found * wanted < 0 and abs(found) > self._slack_ma
        return f"{found:.4g} mA flow when told {wanted:.4g} mA" if excess or backwards else None
