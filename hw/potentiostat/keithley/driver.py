"""A Keithley 2450, 2460 or 2461 as a potentiostat.

The unit is a voltage source at the cut-off with a current limit: constant current until the cell reaches the set
voltage, constant voltage after it, in hardware, whatever becomes of the host. Its trigger model takes the readings and
opens the output when the host has been silent for `host_loss_after_s`. Commands as the 2450 reference manual
(2450-901-01) has them; what could not be tried on hardware is listed in `docs/first-hardware.md`.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
)
from hw.potentiostat.keithley.models import MODELS
from hw.potentiostat.keithley.readings import Readings
from hw.potentiostat.keithley.scpi import Scpi, cell_error
from hw.usb.bus import FoundDevice, UsbId, find
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError
from hw.usb.usbtmc import TRIPLES

State = Literal["off", "rest", "voltmeter", "driving", "found"]
"""Off: the relay is open. Rest: the same, until the voltmeter is asked for. Found: on, by somebody else's doing."""
VENDOR_ID = 0x05E6
BUFFER = '"defbuffer1"'
FETCH_POINTS = 500
CLEAR_AT_POINTS = 50_000  # half of what the buffer holds
REARM_SHARE = 1 / 3  # of the time of host loss: two more tries before it runs out
LIMITED_SHARE = 0.98  # a current this near to its limit is limited
POLL_S = 0.02
PROTECTIONS_V = (2, 5, 10, 20, 40)
PROTECTION_MARGIN = 1.05
VOLTMETER_RANGE_A = 1e-7
REVERSED_V = -0.1


class KeithleyPotentiostat(Potentiostat):
    """See the module's docstring. One thread drives it; `mode` and `cell_off` may come from another."""

    class Settings(BaseModel):
        """Options of the unit."""

        model_config = ConfigDict(extra="forbid")

        serial: str = ""
        """Serial number; empty: the only one on the USB."""
        sample_rate_hz: float = Field(default=5.0, gt=0, le=20)
        """Readings a second."""
        host_loss_after_s: float = Field(default=30.0, ge=5, le=3600)
        """Silence of the host after which the unit opens the output."""
        four_wire: bool = True
        """Sense leads are connected: voltages are the cell's, without the drop along the leads."""
        measure_at_rest: bool = True
        """At rest the voltage is read with the output on at 0 A in the smallest range, at most 105 nA; false: the
        relay stays open, and a rest has no voltage.
        """
        timeout_s: float = Field(default=2.0, ge=0.2, le=30)
        """Of one command."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._period_s = 1.0 / settings.sample_rate_hz
        self._lock = threading.RLock()
        self._device: UsbDevice | None = None
        self._scpi: Scpi | None = None
        self._model = MODELS["2450"]
        self._limits: DeviceLimits | None = None
        self._state: State = "off"
        self._driven_mode = CellMode.GALVANOSTATIC
        self._begin_anew()

    # -- opening and closing ------------------------------------------------------------

    def open(self) -> PotentiostatInfo:
        """Claim the unit and see what it does; a cell found on stays so until it is switched off or driven."""
        if self._device is not None:
            raise PotentiostatError(CellReason.REFUSED, "the unit is open already")
        try:
            found = self._found()
            number = next(one.number for one in found.interfaces if one.triple in TRIPLES)
            self._device = UsbDevice.open(found, [number])
            self._scpi = Scpi(self._device, self._settings.timeout_s)
        except UsbError as error:
            self._release()
            raise cell_error(error) from error
        try:
            return self._introduced()
        except BaseException:
            self._release()
            raise

    def _found(self) -> FoundDevice:
        wanted = [UsbId(VENDOR_ID, interface=triple, serial=self._settings.serial or None) for triple in TRIPLES]
        found = find(wanted)
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"'{one.serial}'" for one in found)
        what = f"{len(found)} units are on the USB: name one by serial ({names})" if found else "no unit is on the USB"
        raise PotentiostatError(CellReason.NOT_FOUND, what)

    def _introduced(self) -> PotentiostatInfo:
        scpi = self._talk()
        scpi.clear()
        identity = [part.strip() for part in scpi.ask("*IDN?").split(",")]
        named = identity[1].removeprefix("MODEL ") if len(identity) == 4 else ""
        if named not in MODELS:
            raise PotentiostatError(
                CellReason.REFUSED, f"'{', '.join(identity)[:80]}' is none of the units known ({', '.join(MODELS)})"
            )
        if scpi.ask("*LANG?") != "SCPI":
            raise PotentiostatError(
                CellReason.REFUSED,
                "the unit speaks TSP: set Menu, System, Settings, Command Set to SCPI and restart it",
            )
        scpi.errors()
        self._model = MODELS[named]
        self._limits = None
        self._begin_anew()
        self._state = "found" if scpi.ask("OUTP?") == "1" else "off"
        if self._state == "off":
            self._prepare()
        return PotentiostatInfo(
            model=self._model.name,
            serial=identity[2],
            max_current_ma=self._model.max_current_ma,
            min_voltage_v=0.0,
            max_voltage_v=self._model.max_voltage_v,
            sample_rate_hz=self._settings.sample_rate_hz,
            host_loss=HostLoss.CELL_OFF,
            host_loss_after_s=self._settings.host_loss_after_s,
        )

    def _prepare(self) -> None:
        """From any state of an output that is off: known settings, and an off that isolates."""
        sense = "ON" if self._settings.four_wire else "OFF"
        self._talk().tell(
            "ABOR",
            "*RST",
            "OUTP:SMOD HIMP",  # the normal off state would drain the cell
            f"SENS:CURR:RSEN {sense}",
            f"SENS:VOLT:RSEN {sense}",
            "SENS:CURR:NPLC 1",
            "SENS:VOLT:NPLC 1",
            "SOUR:VOLT:READ:BACK ON",
            f"TRAC:CLE {BUFFER}",
        )
        self._begin_anew()

    def close(self) -> None:
        """Cell off, front panel back, device released."""
        with self._lock:
            if self._device is None:
                return
            with contextlib.suppress(PotentiostatError):
                self.cell_off()
            if self._scpi is not None:
                self._scpi.local()
            self._release()

    def _release(self) -> None:
        device, self._device, self._scpi = self._device, None, None
        if device is not None:
            device.close()

    def _talk(self) -> Scpi:
        if self._scpi is None:
            raise PotentiostatError(CellReason.UNPLUGGED, "the unit is not open")
        return self._scpi

    # -- driving ------------------------------------------------------------

    def mode(self) -> CellMode:
        """Asked of the unit. The voltmeter at rest counts as off: at most 105 nA can flow."""
        with self._lock:
            scpi = self._talk()
            if scpi.ask("OUTP?") != "1" or self._state == "voltmeter":
                return CellMode.OFF
            if self._state == "found" and scpi.ask("SOUR:FUNC?").startswith("CURR"):
                return CellMode.GALVANOSTATIC
            return self._driven_mode

    def set_limits(self, limits: DeviceLimits) -> bool:
        """The source's voltage is never set beyond them; with them comes the unit's own over-voltage protection."""
        with self._lock:
            self._limits = limits
        return True

    def set_current(self, current_ma: float) -> None:
        """A source at the limit of voltage on that side, limited to this current."""
        most_ma = min(self._model.max_current_ma, self._bounds().max_current_ma)
        if not abs(current_ma) <= most_ma:
            raise PotentiostatError(
                CellReason.REFUSED, f"{current_ma:g} mA is outside of the range of +-{most_ma:g} mA"
            )
        with self._lock:
            bounds = self._bounds()
            if current_ma == 0.0:
                self.cell_off()
                return
            self._drive(bounds.max_voltage_v if current_ma > 0 else bounds.min_voltage_v, abs(current_ma))
            self._driven_mode = CellMode.GALVANOSTATIC

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """A source at this voltage, limited to that current."""
        bounds = self._bounds()
        if not bounds.min_voltage_v <= voltage_v <= bounds.max_voltage_v:
            raise PotentiostatError(
                CellReason.REFUSED,
                f"{voltage_v:g} V is outside of {bounds.min_voltage_v:g} to {bounds.max_voltage_v:g} V",
            )
        if not 0 < max_current_ma <= self._model.max_current_ma:
            raise PotentiostatError(
                CellReason.REFUSED, f"{max_current_ma:g} mA is outside of 0 to {self._model.max_current_ma:g} mA"
            )
        with self._lock:
            self._drive(voltage_v, max_current_ma)
            self._driven_mode = CellMode.POTENTIOSTATIC

    def _bounds(self) -> DeviceLimits:
        model = self._model
        return self._limits or DeviceLimits(0.0, model.max_voltage_v, model.max_current_ma)

    def _drive(self, voltage_v: float, limit_ma: float) -> None:
        scpi = self._talk()
        self._limit_ma = limit_ma
        levels = (f"SOUR:VOLT:ILIM {limit_ma / 1e3:.6g}", f"SOUR:VOLT {voltage_v:.6g}")
        if self._state == "driving":
            self._fetch()
            scpi.tell("ABOR", f"SENS:CURR:RANG {limit_ma / 1e3:.6g}", *levels)
        else:
            self._connect(limit_ma)
            scpi.tell(levels[1])
        self._arm()
        self._state = "driving"

    def _connect(self, limit_ma: float) -> None:
        """Close the circuit at the cell's own voltage, so that nothing rushes in before the limit acts."""
        if self._state == "found":
            self._open_circuit()
        rest_v = self._rest_voltage_v()
        bounds, scpi = self._bounds(), self._talk()
        if not math.isfinite(rest_v) or rest_v < REVERSED_V:
            self._open_circuit()
            raise PotentiostatError(CellReason.REFUSED, f"the cell shows {rest_v:.3f} V: its leads may be reversed")
        level_v = min(max(rest_v, bounds.min_voltage_v), bounds.max_voltage_v)
        self._open_circuit()
        protection = next((v for v in PROTECTIONS_V if v >= PROTECTION_MARGIN * bounds.max_voltage_v), None)
        scpi.tell(
            "SOUR:FUNC VOLT",
            'SENS:FUNC "CURR"',
            f"SENS:CURR:RSEN {'ON' if self._settings.four_wire else 'OFF'}",
            f"SENS:CURR:RANG {limit_ma / 1e3:.6g}",
            f"SOUR:VOLT:RANG {bounds.max_voltage_v:.6g}",
            f"SOUR:VOLT:PROT {'NONE' if protection is None else f'PROT{protection}'}",
            f"SOUR:VOLT:ILIM {limit_ma / 1e3:.6g}",
            f"SOUR:VOLT {level_v:.6g}",
            f"TRAC:CLE {BUFFER}",
            *self._blocks(),
        )
        self._readings.cleared()
        scpi.tell("OUTP ON")

    def _blocks(self) -> Iterator[str]:
        """Readings for `host_loss_after_s`; then the output opens, unless the host has begun anew."""
        readings = max(2, math.ceil(self._settings.host_loss_after_s / self._period_s))
        pause_s = max(self._period_s - 0.025, 0.001)  # a reading at 1 power line cycle takes the rest
        yield 'TRIG:LOAD "Empty"'
        yield "TRIG:BLOC:SOUR:STAT 1, ON"
        yield f"TRIG:BLOC:MEAS 2, {BUFFER}"
        yield f"TRIG:BLOC:DEL:CONS 3, {pause_s:.6g}"
        yield f"TRIG:BLOC:BRAN:COUN 4, {readings}, 2"
        yield "TRIG:BLOC:SOUR:STAT 5, OFF"

    def _arm(self) -> None:
        self._talk().tell("INIT")
        self._armed_s = time.monotonic()

    def keep_alive(self) -> None:
        """Begins the unit's count of the host's silence anew."""
        with self._lock:
            silent_s = time.monotonic() - self._armed_s
            if self._state != "driving" or silent_s < REARM_SHARE * self._settings.host_loss_after_s:
                return
            scpi = self._talk()
            self._fetch()
            self._must_run()
            clear = [f"TRAC:CLE {BUFFER}"] if self._readings.fetched >= CLEAR_AT_POINTS else []
            scpi.tell("ABOR", *clear)
            if clear:
                self._readings.cleared()
            self._arm()

    def cell_off(self) -> None:
        """Open the relay and ask whether it is. IN_DOUBT when the unit does not say so."""
        with self._lock:
            self._open_circuit()
            if self._settings.measure_at_rest:
                self._state = "rest"

    def _open_circuit(self) -> None:
        scpi = self._talk()
        try:
            if self._state == "found":
                scpi.tell("ABOR", "OUTP:SMOD HIMP", "OUTP OFF")
            else:
                scpi.tell("ABOR", "OUTP OFF")
            answer = scpi.ask("OUTP?")
        except PotentiostatError as error:
            raise PotentiostatError(CellReason.IN_DOUBT, f"switching off: {error.detail}") from error
        if answer != "0":
            raise PotentiostatError(CellReason.IN_DOUBT, f"the unit was told to open its output and says '{answer}'")
        found, self._state = self._state, "off"
        if found == "found":
            self._prepare()

    # -- reading ------------------------------------------------------------

    def read(self, timeout_s: float) -> list[CellSample]:
        """What the trigger model has measured, or at rest one reading of the voltmeter."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            with self._lock:
                if self._state in ("off", "rest", "voltmeter"):
                    samples = self._rest_sample(deadline_s)
                else:
                    samples = self._driven_samples()
            left_s = deadline_s - time.monotonic()
            if samples or left_s <= 0:
                return samples
            time.sleep(min(POLL_S, left_s))

    def _driven_samples(self) -> list[CellSample]:
        if self._state == "found":
            return self._found_sample()
        self._fetch()
        samples = self._readings.take()
        if not samples:
            self._must_run()
        return samples

    def _must_run(self) -> None:
        """Tell what made the unit stop by itself, if it did. Raises `PotentiostatError`."""
        scpi = self._talk()
        if scpi.ask("SOUR:VOLT:PROT:TRIP?") == "1":
            self.cell_off()
            raise PotentiostatError(CellReason.LIMIT, "the unit's over-voltage protection opened the output")
        state = scpi.ask("TRIG:STAT?").partition(";")[0]
        if state != "RUNNING" and not len(self._readings):
            self.cell_off()
            raise PotentiostatError(
                CellReason.UNWATCHED, f"the unit opened its output by itself (trigger model {state.lower()})"
            )

    def _fetch(self) -> None:
        """Take new readings out of the buffer."""
        scpi = self._talk()
        upto = int(scpi.numbers(f"TRAC:ACT? {BUFFER}")[0])
        while (fetched := self._readings.fetched) < upto:
            last = min(upto, fetched + FETCH_POINTS)
            told = scpi.numbers(f"TRAC:DATA? {fetched + 1}, {last}, {BUFFER}, SOUR, READ, REL")
            now_s = time.monotonic()
            rows = [told[k : k + 3] for k in range(0, len(told) - 2, 3)]
            if len(rows) != last - fetched:
                what = f"the unit told {len(rows)} readings in place of {last - fetched}"
                raise PotentiostatError(CellReason.STALLED, what)
            newest_s = rows[-1][2]
            for voltage_v, current_a, relative_s in rows:
                self._driven_mode = self._mode_of(current_a * 1e3)
                host_s = now_s - (newest_s - relative_s)
                self._readings.add(voltage_v, current_a * 1e3, relative_s, host_s, self._driven_mode)

    def _mode_of(self, current_ma: float) -> CellMode:
        """Whether the limit of the current or the source's voltage holds."""
        limited = abs(current_ma) >= LIMITED_SHARE * self._limit_ma
        return CellMode.GALVANOSTATIC if limited else CellMode.POTENTIOSTATIC

    def _begin_anew(self) -> None:
        self._readings = Readings()
        self._limit_ma = math.inf
        self._armed_s = self._rested_s = -math.inf

    def _found_sample(self) -> list[CellSample]:
        """A cell found on: what flows now, whatever drives it."""
        scpi = self._talk()
        upto = int(scpi.numbers(f"TRAC:ACT? {BUFFER}")[0])
        if scpi.ask("TRIG:STAT?").startswith("RUNNING"):
            if upto <= self._readings.fetched:
                return []
            told = scpi.numbers(f"TRAC:DATA? {upto}, {upto}, {BUFFER}, SOUR, READ, REL")
        else:
            told = scpi.numbers(f"READ? {BUFFER}, SOUR, READ, REL")
            upto += 1
        self._readings.add(told[0], told[1] * 1e3, told[2], time.monotonic(), self._driven_mode)
        self._readings.fetched = upto
        return self._readings.take()

    def _rest_sample(self, deadline_s: float) -> list[CellSample]:
        if not self._settings.measure_at_rest:
            return []
        due_s = self._rested_s + self._period_s
        if due_s > deadline_s:
            return []
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._rested_s = time.monotonic()
        self._enter_voltmeter()
        current_a, voltage_v, relative_s = self._talk().numbers(f"READ? {BUFFER}, SOUR, READ, REL")
        self._readings.add(voltage_v, current_a * 1e3, relative_s, time.monotonic(), CellMode.OFF)
        return self._readings.take()

    def _rest_voltage_v(self) -> float:
        """The open cell's voltage, before its circuit is closed."""
        self._enter_voltmeter()
        voltage_v: float = self._talk().numbers(f"READ? {BUFFER}, READ")[0]
        self._readings.fetched += 1
        return voltage_v

    def _enter_voltmeter(self) -> None:
        """The output on as a source of 0 A in its smallest range: a voltmeter."""
        if self._state == "voltmeter":
            return
        limit_v = min(PROTECTION_MARGIN * self._bounds().max_voltage_v + 0.5, self._model.max_voltage_v)
        self._talk().tell(
            "ABOR",
            "OUTP OFF",
            "SOUR:FUNC CURR",
            f"SOUR:CURR:RANG {VOLTMETER_RANGE_A:g}",
            "SOUR:CURR 0",
            f"SOUR:CURR:VLIM {limit_v:.6g}",
            "SOUR:CURR:READ:BACK ON",
            'SENS:FUNC "VOLT"',
            f"SENS:VOLT:RSEN {'ON' if self._settings.four_wire else 'OFF'}",
            f"SENS:VOLT:RANG {limit_v:.6g}",
            f"TRAC:CLE {BUFFER}",
            "OUTP ON",
        )
        self._readings.cleared()
        self._state = "voltmeter"
