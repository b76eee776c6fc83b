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
from hw.potentiostat.keithley import commands
from hw.potentiostat.keithley.commands import BUFFER
from hw.potentiostat.keithley.models import MODELS
from hw.potentiostat.keithley.readings import Readings
from hw.potentiostat.keithley.scpi import Scpi
from hw.potentiostat.usb_errors import cell_error
from hw.usb.bus import FoundDevice, UsbId, find
from hw.usb.device import UsbDevice
from hw.usb.errors import UsbError
from hw.usb.usbtmc import TRIPLES

State = Literal["off", "voltmeter", "driving", "found"]
"""Voltmeter: on as a source of 0 A. Found: on, by somebody else's doing."""
VENDOR_ID = 0x05E6
FETCH_POINTS = 500
CLEAR_AT_POINTS = 50_000  # half of what the buffer holds
REARM_SHARE = 1 / 3  # of the time of host loss: two more tries before it runs out
EARLY_SHARE = 0.5  # the unit does not open for silence earlier, however its clock runs
LIMITED_SHARE = 0.98  # a current this near to its limit is limited
POLL_SHARE = 0.25  # of the time between two readings
LEAST_POLL_S = 0.01
RUNNING = ("RUNNING", "WAITING")
STATE_AGE_S = 0.5  # the unit looks at its trigger model every 100 ms only
REVERSED_V = -0.1
SLACK_V = 0.02
OPEN_S, COMMAND_S = 20.0, 2.0  # a caller gives a command up after three
READ_EXTRA_S = 1.5  # beyond what a read may wait, for a lost answer that is asked for again
OFF_PATIENCE_S = 0.3  # switching off does not wait longer for a call that hangs


class KeithleyPotentiostat(Potentiostat):
    """See the module's docstring. One thread drives it; `cell_off` may come from another past a call that hangs."""

    class Settings(BaseModel):
        """Options of the unit."""

        model_config = ConfigDict(extra="forbid")

        serial: str = ""
        """Serial number; empty: the only one on the USB."""
        sample_rate_hz: float = Field(default=5.0, ge=0.5, le=20)
        """Readings a second."""
        host_loss_after_s: float = Field(default=30.0, ge=5, le=3600)
        """Silence of the host after which the unit opens the output."""
        four_wire: bool = True
        """Sense leads are connected: voltages are the cell's, without the drop along the leads."""
        timeout_s: float = Field(default=1.0, ge=0.2, le=1.5)
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
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._readings = Readings()
        self._told = self._shown = CellMode.GALVANOSTATIC
        self._limit_ma = math.inf
        self._armed_s = self._checked_s = self._rested_s = -math.inf
        self._fault: PotentiostatError | None = None

    @contextlib.contextmanager
    def _turn(self, budget_s: float, patience_s: float = -1.0) -> Iterator[Scpi]:
        """The unit for this call alone, for so long; after `patience_s` also past a call that does not end."""
        held = self._lock.acquire(timeout=patience_s)
        try:
            scpi = self._talk()
            with scpi.within(budget_s):
                yield scpi
        finally:
            if held:
                self._lock.release()

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
            with self._turn(OPEN_S) as scpi:
                return self._introduced(scpi)
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

    def _introduced(self, scpi: Scpi) -> PotentiostatInfo:
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
        if self._state == "found" and self._is_voltmeter(scpi):
            self._open_circuit()
        elif self._state == "off":
            self._prepare(scpi)
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

    @staticmethod
    def _is_voltmeter(scpi: Scpi) -> bool:
        """Whether it is on as a host that died while the cell rested has left it: at 0 A."""
        return scpi.ask("SOUR:FUNC?").startswith("CURR") and scpi.row("SOUR:CURR?", 1) == [0.0]

    def _prepare(self, scpi: Scpi) -> None:
        """From any state of an output that is off: known settings, and an off that isolates."""
        scpi.tell(*commands.prepare(self._settings.four_wire))
        self._begin_anew()

    def close(self) -> None:
        """Cell off, front panel back, device released."""
        with contextlib.suppress(PotentiostatError), self._turn(COMMAND_S, OFF_PATIENCE_S) as scpi:
            with contextlib.suppress(PotentiostatError):
                self._open_circuit()
            scpi.local()
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
        with self._turn(COMMAND_S) as scpi:
            if scpi.ask("OUTP?") != "1" or self._state == "voltmeter":
                return CellMode.OFF
            if self._state == "found":
                current = scpi.ask("SOUR:FUNC?").startswith("CURR")
                return CellMode.GALVANOSTATIC if current else CellMode.POTENTIOSTATIC
            return self._shown

    def set_limits(self, limits: DeviceLimits) -> bool:
        """The source's voltage is never set beyond them; with them comes the unit's own over-voltage protection."""
        with self._lock:
            self._limits = limits
        return True

    def set_current(self, current_ma: float) -> None:
        """A source at the limit of voltage on that side, limited to this current."""
        with self._turn(COMMAND_S):
            bounds = self._bounds()
            most_ma = min(self._model.max_current_ma, bounds.max_current_ma)
            if not abs(current_ma) <= most_ma:
                raise PotentiostatError(
                    CellReason.REFUSED, f"{current_ma:g} mA is outside of the range of +-{most_ma:g} mA"
                )
            if current_ma == 0.0:
                self._open_circuit()
                return
            voltage_v = bounds.max_voltage_v if current_ma > 0 else bounds.min_voltage_v
            self._drive(CellMode.GALVANOSTATIC, voltage_v, abs(current_ma))

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """A source at this voltage, limited to that current."""
        with self._turn(COMMAND_S):
            bounds, most_ma = self._bounds(), self._model.max_current_ma
            if not bounds.min_voltage_v <= voltage_v <= bounds.max_voltage_v:
                raise PotentiostatError(
                    CellReason.REFUSED,
                    f"{voltage_v:g} V is outside of {bounds.min_voltage_v:g} to {bounds.max_voltage_v:g} V",
                )
            if not 0 < max_current_ma <= most_ma:
                raise PotentiostatError(CellReason.REFUSED, f"{max_current_ma:g} mA is outside of 0 to {most_ma:g} mA")
            self._drive(CellMode.POTENTIOSTATIC, voltage_v, max_current_ma)

    def _bounds(self) -> DeviceLimits:
        model = self._model
        return self._limits or DeviceLimits(0.0, model.max_voltage_v, model.max_current_ma)

    def _drive(self, told: CellMode, voltage_v: float, limit_ma: float) -> None:
        """In one message with the start of the trigger model: a host that dies leaves no drive without its end."""
        self._tell_fault()
        if self._state == "driving":
            self._fetch()
        else:
            self._connect(limit_ma)
        self._talk().tell(commands.redrive(voltage_v, limit_ma, self._limit_ma))
        self._fetch()  # what was measured before
        self._armed_s = self._checked_s = time.monotonic()
        self._told = self._shown = told
        self._limit_ma = limit_ma
        self._state = "driving"

    def _connect(self, limit_ma: float) -> None:
        """Close the circuit at the cell's own voltage, so that nothing rushes in before the limit acts.

        The unit counts the host's silence from there on.
        """
        if self._state == "found":
            self._open_circuit()
        rest_v = self._rest_voltage_v()
        self._open_circuit()
        bounds, scpi = self._bounds(), self._talk()
        if not rest_v >= REVERSED_V:
            raise PotentiostatError(CellReason.REFUSED, f"the cell shows {rest_v:.3f} V: its leads may be reversed")
        if not bounds.min_voltage_v - SLACK_V <= rest_v <= bounds.max_voltage_v + SLACK_V:
            raise PotentiostatError(
                CellReason.REFUSED,
                f"the cell shows {rest_v:.3f} V, outside of {bounds.min_voltage_v:g} to {bounds.max_voltage_v:g} V",
            )
        level_v = min(max(rest_v, bounds.min_voltage_v), bounds.max_voltage_v)
        settings = commands.source(level_v, limit_ma, bounds.max_voltage_v, self._settings.four_wire)
        model = commands.readings(self._period_s, self._settings.host_loss_after_s)
        scpi.tell(commands.joined(settings + model))
        self._readings.cleared()
        self._state, self._limit_ma = "driving", limit_ma
        scpi.tell(":OUTP ON;:INIT")
        self._armed_s = self._checked_s = time.monotonic()

    def keep_alive(self) -> None:
        """Begins the unit's count of the host's silence anew."""
        with self._turn(COMMAND_S) as scpi:
            silent_s = time.monotonic() - self._armed_s
            if self._state != "driving" or silent_s < REARM_SHARE * self._settings.host_loss_after_s:
                return
            self._fetch()
            self._must_run()
            if self._readings.fetched < CLEAR_AT_POINTS:
                scpi.tell(":ABOR;*WAI;:INIT")
            else:
                scpi.tell(":ABOR;*WAI")
                self._fetch()
                scpi.tell(f":TRAC:CLE {BUFFER};:INIT")
                self._readings.cleared()
            self._armed_s = self._checked_s = time.monotonic()

    def cell_off(self) -> None:
        """Open the relay and ask whether it is. IN_DOUBT when the unit does not say so."""
        with self._turn(COMMAND_S, OFF_PATIENCE_S):
            self._open_circuit()
            self._fault = None

    def _open_circuit(self) -> None:
        scpi, was = self._talk(), self._state
        try:
            self._send_off(scpi)
            answer = scpi.ask("OUTP?")
        except PotentiostatError as error:
            raise PotentiostatError(CellReason.IN_DOUBT, f"switching off: {error.detail}") from error
        if answer != "0":
            raise PotentiostatError(CellReason.IN_DOUBT, f"the unit was told to open its output and says '{answer}'")
        self._state = "off"
        scpi.clear_queues()
        if was == "found":
            self._prepare(scpi)
        elif was == "driving":
            with contextlib.suppress(PotentiostatError):  # it is off: that alone matters
                self._fetch()

    def _send_off(self, scpi: Scpi) -> None:
        """Whatever the unit has to say to it; a second time when the first was not taken."""
        message = ":ABOR;:OUTP:SMOD HIMP;:OUTP OFF" if self._state == "found" else ":ABOR;:OUTP OFF"
        try:
            scpi.send(message)
        except PotentiostatError as error:
            if error.reason is CellReason.UNPLUGGED:
                raise
            scpi.send(message)

    # -- reading ------------------------------------------------------------

    def read(self, timeout_s: float) -> list[CellSample]:
        """What the trigger model has measured, or at rest one reading of the voltmeter."""
        deadline_s = time.monotonic() + timeout_s
        with self._turn(timeout_s + READ_EXTRA_S):
            self._tell_fault()
            while True:
                samples = self._driven_samples() if self._state == "driving" else self._rest_sample(deadline_s)
                left_s = deadline_s - time.monotonic()
                if samples or left_s <= 0:
                    return samples
                time.sleep(min(max(POLL_SHARE * self._period_s, LEAST_POLL_S), left_s))

    def _tell_fault(self) -> None:
        """Raise what was found before, if anything was: that the unit opened its output by itself."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _driven_samples(self) -> list[CellSample]:
        """What was measured comes first, then why there is no more of it."""
        self._fetch()
        if not len(self._readings) or time.monotonic() - self._checked_s > self._period_s:
            try:
                self._must_run()
            except PotentiostatError as error:
                if not len(self._readings):
                    raise
                self._fault = error
        return self._readings.take()

    def _must_run(self) -> None:
        """Tell what made the unit stop by itself, if it did, with the output open. Raises `PotentiostatError`."""
        scpi = self._talk()
        on = scpi.ask("OUTP?") == "1"
        state = scpi.ask("TRIG:STAT?").partition(";")[0]
        self._checked_s = time.monotonic()
        young = self._checked_s - self._armed_s < STATE_AGE_S
        if on and (state in RUNNING or young):
            return
        protected = scpi.ask("SOUR:VOLT:PROT:TRIP?") == "1"
        self._open_circuit()
        if protected:
            raise PotentiostatError(CellReason.LIMIT, "the unit's over-voltage protection opened its output")
        silent_s = self._checked_s - self._armed_s
        if not on and silent_s > EARLY_SHARE * self._settings.host_loss_after_s:
            raise PotentiostatError(
                CellReason.UNWATCHED, f"the unit heard nothing for {silent_s:.3g} s and opened its output"
            )
        what = f"its trigger model is '{state.lower()}'" if on else "its output was opened, perhaps at its front panel"
        raise PotentiostatError(CellReason.DISOBEYED, f"the unit does not do what it was told: {what}")

    def _fetch(self) -> None:
        """Take new readings out of the buffer."""
        scpi = self._talk()
        upto = scpi.count(f"TRAC:ACT? {BUFFER}")
        while (fetched := self._readings.fetched) < upto:
            last = min(upto, fetched + FETCH_POINTS)
            query = f"TRAC:DATA? {fetched + 1}, {last}, {BUFFER}, SOUR, READ, REL"
            rows = self._rows(query, last - fetched)
            now_s = time.monotonic()
            for voltage_v, current_a, relative_s in rows:
                self._shown = self._mode_of(current_a * 1e3)
                host_s = now_s - (rows[-1][2] - relative_s)
                self._readings.add(voltage_v, current_a * 1e3, relative_s, host_s, self._shown)

    def _rows(self, query: str, count: int) -> list[tuple[float, float, float]]:
        """So many readings: source, measured, relative time. STALLED when a time is none."""
        told = self._talk().row(query, 3 * count)
        rows = [(told[k], told[k + 1], told[k + 2]) for k in range(0, len(told), 3)]
        if not all(math.isfinite(relative_s) for _, _, relative_s in rows):
            raise PotentiostatError(CellReason.STALLED, "the unit gives readings without their time")
        return rows

    def _mode_of(self, current_ma: float) -> CellMode:
        """A voltage is held however its current is bounded; a current is driven only while its limit acts."""
        limited = abs(current_ma) >= LIMITED_SHARE * self._limit_ma
        return CellMode.GALVANOSTATIC if limited and self._told is CellMode.GALVANOSTATIC else CellMode.POTENTIOSTATIC

    def _rest_sample(self, deadline_s: float) -> list[CellSample]:
        """None of a cell found on: what drives it is not known, and it is to be switched off first."""
        due_s = self._rested_s + self._period_s
        if self._state == "found" or due_s > deadline_s:
            return self._readings.take()
        time.sleep(max(0.0, due_s - time.monotonic()))
        self._rested_s = time.monotonic()
        self._enter_voltmeter()
        scpi = self._talk()
        if self._readings.fetched >= CLEAR_AT_POINTS:
            scpi.tell(f"TRAC:CLE {BUFFER}")
            self._readings.cleared()
        ((current_a, voltage_v, relative_s),) = self._rows(f"READ? {BUFFER}, SOUR, READ, REL", 1)
        self._readings.add(voltage_v, current_a * 1e3, relative_s, time.monotonic(), CellMode.OFF)
        return self._readings.take()

    def _rest_voltage_v(self) -> float:
        """The open cell's voltage, before its circuit is closed."""
        self._enter_voltmeter()
        (voltage_v,) = self._talk().row(f"READ? {BUFFER}, READ", 1)
        self._readings.fetched += 1
        return voltage_v

    def _enter_voltmeter(self) -> None:
        """The output on as a source of 0 A in its smallest range: a voltmeter."""
        if self._state == "voltmeter":
            return
        limit_v = min(commands.PROTECTION_MARGIN * self._bounds().max_voltage_v + 0.5, self._model.max_voltage_v)
        self._talk().tell(commands.joined(commands.voltmeter(limit_v, self._settings.four_wire)))
        self._talk().tell("OUTP ON")
        self._readings.cleared()
        self._state = "voltmeter"
