"""The driver of MethodSCRIPT potentiostats: each command becomes a script that bounds itself, loaded and run.

While the cell is off a script watches its open circuit. `docs/drivers.md` says what happens on each loss.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import (
    CellMode,
    CellSample,
    DeviceLimits,
    HostLoss,
    Potentiostat,
    PotentiostatInfo,
    StepBounds,
)
from hw.potentiostat.methodscript.links import make_lines
from hw.potentiostat.methodscript.models import Model, check_capabilities, identify
from hw.potentiostat.methodscript.packets import End, Fault, Packet
from hw.potentiostat.methodscript.runs import Clock, Run, found_mode
from hw.potentiostat.methodscript.scripts import (
    Frame,
    Window,
    bound_s,
    current_script,
    voltage_script,
    watch_script,
)
from hw.potentiostat.methodscript.session import Heard, ScriptFailed, Session
from hw.potentiostat.usb_errors import cell_error
from hw.usb.errors import UsbError
from hw.usb.lines import Lines

log = logging.getLogger(__name__)

LONGEST_INTERVAL_S = 0.5
WATCH_S = 3600.0  # of open circuit, then anew
LISTEN_S = 0.3  # at least, for a script that runs already
LISTEN_INTERVALS = 2.5
MEASURE_S = 1.0  # from a script that was taken to its first loop: set-up and two single readings
CONFIRM_S = 1.0  # beyond one interval, for an open-circuit reading
LOCK_S = 2.5  # an order to switch off comes from another thread when this one hangs
RECENT_INTERVALS = 5.0
MAX_SAMPLES = 50_000
NO_BOUNDS = StepBounds()
FOUND_RUNNING = Model("MethodSCRIPT device, found running", 6.0, 200.0)
"""Until it can be asked: the least of those that are not refused."""
UNFIT = Model("potentiostat that cannot drive this cell", 1.7, 0.0)


class MethodScriptPotentiostat(Potentiostat):
    """An EmStat4 or Nexus. Limits are kept by the device itself, at every sample, with or without a host."""

    class Settings(BaseModel):
        """Options of the link and of the scripts."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

        link: Literal["usb", "tty"] = "usb"
        """`usb`: CDC-ACM or FTDI over pyusb; `tty`: a terminal of the kernel."""
        device: str = ""
        """Path of the terminal; of `tty` only."""
        serial: str = ""
        """Serial number, where more than one is plugged in: on the USB, or of the device itself behind a terminal."""
        baud: int = Field(default=921600, ge=9600, le=3_000_000)
        """Of FTDI chips and terminals; devices of class CDC ignore it."""
        interval_s: float = Field(default=0.1, ge=0.02, le=600)
        """Device time between two samples, and so how late a limit may be noticed."""
        default_bound_s: float = Field(default=86_400.0, gt=0, le=604_800)
        """Longest time of a script whose step has no bound."""
        cell_max_voltage_v: float = Field(default=4.5, gt=0, le=10)
        """Highest voltage of the cell: a model that does not measure it is refused."""
        clock_rate: float = Field(default=1.0, gt=0)
        """Device seconds in one second of the host: 1, but for an emulated device that runs faster."""

        @model_validator(mode="after")
        def _soon_enough(self) -> MethodScriptPotentiostat.Settings:
            if self.interval_s / self.clock_rate > LONGEST_INTERVAL_S:
                raise ValueError(f"interval_s is at most {LONGEST_INTERVAL_S:g} s: so late may a limit be noticed")
            return self

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._lines: Lines | None = None
        self._session: Session | None = None
        self._model: Model | None = None
        self._window: Window | None = None
        self._run: Run | None = None
        self._samples: deque[CellSample] = deque(maxlen=MAX_SAMPLES)
        self._bounds = NO_BOUNDS
        self._clock = Clock(settings.clock_rate)
        self._confirmed_s = -math.inf
        self._on = self._stranger = False

    # -- opening and closing ------------------------------------------------------------

    def open(self) -> PotentiostatInfo:
        """Claim the link, listen for a script that runs already, and describe the device.

        A script that sends data goes on, and so does its cell; one that says nothing is ended.
        """
        with self._alone():
            if self._session is not None:
                raise PotentiostatError(CellReason.REFUSED, "the potentiostat is open already")
            settings = self._settings
            try:
                self._lines, serial = make_lines(settings.link, settings.device, settings.serial, settings.baud)
                self._lines.open()
            except UsbError as error:
                self._lines = None
                raise cell_error(error) from error
            self._session = Session(self._lines, settings.interval_s / settings.clock_rate)
            try:
                return self._opened_info(self._session, serial)
            except BaseException:
                self._release()
                raise

    def _opened_info(self, session: Session, serial: str) -> PotentiostatInfo:
        settings = self._settings
        self._clock = Clock(settings.clock_rate)
        self._samples.clear()
        interval_s = settings.interval_s / settings.clock_rate
        packets = session.listen(max(LISTEN_S, LISTEN_INTERVALS * interval_s))
        mode = None if packets is None else found_mode(packets)
        if mode is None or mode is CellMode.OFF:
            self._model, serial = self._introduced(session, serial)
            mode = CellMode.GALVANOSTATIC if session.cell_is_on() else CellMode.OFF
            self._on = mode is not CellMode.OFF
        else:  # it cannot be asked what it is before its script has ended
            log.warning("the potentiostat was found running a script that drives its cell (%s)", mode.value)
            self._model, self._on, self._stranger = FOUND_RUNNING, True, True
        self._window = _whole_range(self._model)
        self._run = Run(mode, self._window, ours=False) if self._on else None
        if not self._on:
            self._watch()
        return PotentiostatInfo(
            model=self._model.name,
            serial=serial,
            max_current_ma=self._model.max_current_ma,
            min_voltage_v=-self._model.window_v,
            max_voltage_v=self._model.window_v,
            sample_rate_hz=1.0 / settings.interval_s,
            host_loss=HostLoss.CONTINUE_TO_END,
            host_loss_after_s=None,
            clock_rate=settings.clock_rate,
            host_loss_bound_s=settings.default_bound_s,
        )

    def _introduced(self, session: Session, serial: str) -> tuple[Model, str]:
        """Who the idle device is. Raises `PotentiostatError` when it does not answer or cannot drive the cell."""
        try:
            if session.synchronise():
                log.warning("the potentiostat was running a script that said nothing; it was ended")
        except PotentiostatError as error:
            if error.reason is not CellReason.STALLED:
                raise
            raise PotentiostatError(CellReason.STALLED, "the potentiostat does not answer") from error
        model, own = self._identified(session)
        wanted = self._settings.serial
        if self._settings.link == "tty" and wanted not in ("", own):
            raise PotentiostatError(
                CellReason.NOT_FOUND, f"the potentiostat's serial number is '{own}', not '{wanted}'"
            )
        return model, own or serial

    def _identified(self, session: Session) -> tuple[Model, str]:
        firmware = session.ask("t", last="*")
        model = identify(firmware, self._settings.cell_max_voltage_v)
        check_capabilities(_hexadecimal(session.ask("CM")))
        own = session.ask("i").strip()
        log.info("%s %s, firmware %s", model.name, own, firmware.splitlines()[0])
        return model, own

    def close(self) -> None:
        """Cell off, then the link released."""
        if self._session is None:
            return
        with contextlib.suppress(PotentiostatError), self._alone():
            try:
                self._end_run(self._opened())
                self._opened().force_off()
            except PotentiostatError as error:
                log.warning("switching off before the potentiostat is released: %s", error)
        self._release()

    def _release(self) -> None:
        lines, self._lines, self._session, self._run = self._lines, None, None, None
        if lines is not None:
            lines.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise PotentiostatError(CellReason.UNPLUGGED, "the potentiostat is not open")
        return self._session

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=LOCK_S):
            raise PotentiostatError(CellReason.HUNG, "another call to the potentiostat has not returned")
        try:
            yield
        finally:
            self._lock.release()

    # -- what it is told ------------------------------------------------------------

    def mode(self) -> CellMode:
        """Of the script that runs; off when none drives the cell."""
        with self._alone():
            self._opened()
            self._pump(0.0)
            if self._run is None:
                return CellMode.GALVANOSTATIC if self._on else CellMode.OFF
            return self._run.mode

    def set_limits(self, limits: DeviceLimits) -> bool:
        """Kept by every script from the next on; False while one with wider limits drives the cell."""
        with self._alone():
            self._opened()
            low_v, high_v, most_ma = limits.min_voltage_v, limits.max_voltage_v, limits.max_current_ma
            self._window = Window(low_v, high_v, most_ma)
            run = self._run
            if run is None or run.mode is CellMode.OFF:
                return True
            wide = run.window
            inside = low_v <= wide.min_voltage_v and wide.max_voltage_v <= high_v and wide.max_current_ma <= most_ma
            return run.ours and inside

    def set_bounds(self, bounds: StepBounds) -> bool:
        """For the next command's script, a little beyond: the host ends steps while it lives."""
        self._bounds = bounds
        return True

    def set_current(self, current_ma: float) -> None:
        """Runs a script of constant current. Refused outside of the model's range."""
        with self._alone():
            session, model, bounds = self._opened(), self._known(), self._take_bounds()
            if not abs(current_ma) <= model.max_current_ma:
                detail = f"{current_ma:g} mA is outside of the device's range of +-{model.max_current_ma:g} mA"
                raise PotentiostatError(CellReason.REFUSED, detail)
            frame = self._frame()
            self._drive(session, CellMode.GALVANOSTATIC, current_script(frame, current_ma, bounds), frame)
            log.info("%g mA; by itself the device ends this after %.0f s", current_ma, bound_s(frame, bounds))

    def set_voltage(self, voltage_v: float, max_current_ma: float) -> None:
        """Runs a script that holds a voltage, approached with the largest current where that has to flow first."""
        with self._alone():
            session, model, bounds = self._opened(), self._known(), self._take_bounds()
            if not abs(voltage_v) <= model.window_v:
                detail = f"{voltage_v:g} V is outside of the device's range of +-{model.window_v:g} V"
                raise PotentiostatError(CellReason.REFUSED, detail)
            if not 0 < max_current_ma <= model.max_current_ma:
                detail = f"a current bound of {max_current_ma:g} mA is outside of 0 to {model.max_current_ma:g} mA"
                raise PotentiostatError(CellReason.REFUSED, detail)
            frame = self._frame()
            script = voltage_script(frame, voltage_v, max_current_ma, bounds)
            self._drive(session, CellMode.POTENTIOSTATIC, script, frame)
            log.info("%g V; by itself the device ends this after %.0f s", voltage_v, bound_s(frame, bounds))

    def _known(self) -> Model:
        if self._model is None:
            raise PotentiostatError(CellReason.UNPLUGGED, "the potentiostat is not open")
        return self._model

    def _take_bounds(self) -> StepBounds:
        bounds, self._bounds = self._bounds, NO_BOUNDS
        return bounds

    def _frame(self) -> Frame:
        """Raises `PotentiostatError` (REFUSED) when the limits reach beyond the model."""
        window, model = self._window or _whole_range(self._known()), self._known()
        reach_v = max(abs(window.min_voltage_v), abs(window.max_voltage_v))
        if not (reach_v <= model.window_v and window.max_current_ma <= model.max_current_ma):
            detail = f"limits of {reach_v:g} V and {window.max_current_ma:g} mA reach beyond an {model.name}"
            raise PotentiostatError(CellReason.REFUSED, detail)
        return Frame(window, self._settings.interval_s, self._settings.default_bound_s, _whole_range(model))

    def _drive(self, session: Session, mode: CellMode, script: str, frame: Frame) -> None:
        """Run `script` instead of what runs now; returns once it measures."""
        self._stop_run(session)
        self._on = True
        self._run = Run(mode, frame.window)
        self._clock.begin()
        try:
            session.start(script)
            session.await_loop(MEASURE_S + self._interval_host_s())
        except ScriptFailed as failure:
            self._failed(failure)
        except PotentiostatError:
            self._make_safe(session)
            raise

    def cell_off(self) -> None:
        """Ends what runs, opens the circuit, and takes an open-circuit reading as the proof. Raises IN_DOUBT."""
        with self._alone():
            session = self._opened()
            self._bounds = NO_BOUNDS
            self._pump(0.0)
            watching = self._run is not None and self._run.mode is CellMode.OFF
            recent_s = RECENT_INTERVALS * self._interval_host_s()
            if watching and not self._on and time.monotonic() - self._confirmed_s < recent_s:
                return
            self._make_safe(session)

    def _make_safe(self, session: Session) -> None:
        """ABORTING -> SAFE. Raises `PotentiostatError`: UNPLUGGED, else IN_DOUBT."""
        try:
            self._end_run(session)
            session.force_off()
            if self._stranger:
                self._meet(session)
            self._watch()
            self._await_reading(session)
        except PotentiostatError as error:
            if error.reason is CellReason.UNPLUGGED:
                raise
            detail = f"the cell may be on: {error.detail}"
            raise PotentiostatError(CellReason.IN_DOUBT, detail) from error

    def _meet(self, session: Session) -> None:
        """Find out what was found running, now that it listens; one that is not fit is watched and drives nothing."""
        self._stranger = False
        try:
            self._model = self._identified(session)[0]
        except PotentiostatError as error:
            if error.reason is not CellReason.UNSUITABLE:
                raise
            log.error("%s", error.detail)
            self._model = UNFIT

    def _end_run(self, session: Session) -> None:
        """As `_stop_run`; what goes wrong then is overtaken by the script that switches off."""
        try:
            self._stop_run(session)
        except PotentiostatError as error:
            if error.reason is CellReason.UNPLUGGED:
                raise
            log.warning("ending a script: %s", error.detail)
            session.forget()
            self._run = None

    def _await_reading(self, session: Session) -> None:
        """An open-circuit reading is given with the cell off only. Raises `ScriptFailed`, or STALLED."""
        began_s = time.monotonic()
        deadline_s = began_s + CONFIRM_S + self._interval_host_s()
        while self._confirmed_s < began_s:
            heard = session.next(deadline_s - time.monotonic())
            if heard is None:
                raise PotentiostatError(CellReason.STALLED, "no open-circuit reading came")
            if isinstance(heard.message, Fault):
                raise session.failed(heard.message)
            self._take(heard)
        session.confirmed()

    def keep_alive(self) -> None:
        """The device has no watchdog: its script goes on to its end without a host."""

    # -- what it says ------------------------------------------------------------

    def read(self, timeout_s: float) -> list[CellSample]:
        """Samples since the last call. Raises `PotentiostatError` when the device stopped with an error, cell off."""
        with self._alone():
            self._opened()
            self._pump(timeout_s)
            samples = list(self._samples)
            self._samples.clear()
        return samples

    def _pump(self, timeout_s: float) -> None:
        """Take what came; wait for the first sample."""
        session, deadline_s = self._opened(), time.monotonic() + timeout_s
        while True:
            wait_s = 0.0 if self._samples else max(0.0, deadline_s - time.monotonic())
            heard = session.next(wait_s)
            if heard is None:
                return
            self._take(heard)
            if isinstance(heard.message, End) and self._run is None:
                self._after_end(session)

    def _take(self, heard: Heard) -> None:
        run, message = self._run, heard.message
        if isinstance(message, Fault):
            self._failed(self._opened().failed(message))
        elif isinstance(message, End):
            self._run = None
            self._opened().ended()
            if run is not None and run.ended:
                log.info("the potentiostat ended its script by itself: %s", run.ended.name.lower().replace("_", " "))
        elif isinstance(message, Packet) and run is not None:
            if any(value.overloaded for value in message.values):
                log.warning("the potentiostat is overloaded: a reading stands at the end of its range")
            sample = run.sample(message, heard.host_t_s, self._clock)
            if sample is not None:
                self._samples.append(sample)
                if run.mode is CellMode.OFF:
                    self._confirmed_s, self._on = heard.host_t_s, False

    def _after_end(self, session: Session) -> None:
        """A script ended by itself: its last word was to open the circuit; an open-circuit reading shows it."""
        try:
            self._watch()
        except ScriptFailed as failure:
            log.warning("watching the open circuit: %s", failure.detail)
            self._make_safe(session)

    def _watch(self) -> None:
        session, reach, settings = self._opened(), _whole_range(self._known()), self._settings
        frame = Frame(reach, settings.interval_s, settings.default_bound_s, reach)
        self._run = Run(CellMode.OFF, frame.window)
        self._clock.begin()
        session.start(watch_script(frame, WATCH_S))

    def _stop_run(self, session: Session) -> None:
        """End the script that runs, keeping what it said. Raises `ScriptFailed`, STALLED."""
        session.abort()
        while self._run is not None and (heard := session.waiting()) is not None:
            if isinstance(heard.message, Fault):
                raise session.failed(heard.message)
            self._take(heard)
        session.forget()
        self._run = None

    def _failed(self, failure: ScriptFailed) -> NoReturn:
        """After a runtime error nothing is known of the cell: off by a script of its own, then say what happened."""
        self._on, self._run = True, None
        self._make_safe(self._opened())
        raise PotentiostatError(failure.reason, f"{failure.detail}; the cell was switched off") from failure

    def _interval_host_s(self) -> float:
        return self._settings.interval_s / self._settings.clock_rate


def _whole_range(model: Model) -> Window:
    return Window(-model.window_v, model.window_v, model.max_current_ma)


def _hexadecimal(text: str) -> int:
    digits = text.strip().removeprefix("M").removeprefix("C")
    try:
        return int(digits, 16)
    except ValueError:
        detail = f"the potentiostat says of its capabilities '{text[:40]}'"
        raise PotentiostatError(CellReason.UNSUITABLE, detail) from None
