"""A source-measure unit with a cell on its terminals: what its SCPI commands do, and what it does by itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Literal

from hw.twin.bench import BenchCell, BenchOptions
from hw.twin.settings import Positive
from hw.twin.smu import trigger
from hw.twin.smu.language import (
    CONFLICT,
    MISSING,
    OUT_OF_RANGE,
    CommandTable,
    ErrorQueue,
    Handler,
    ScpiError,
    choice,
    commands,
    number,
    switch,
)

MAINS_HZ = 50.0
OVERHEAD_S = 0.002
BUFFER_POINTS = 100_000
MOST_VOLTAGE_V = 21.0
MOST_CURRENT_A = {"2450": 1.05, "2460": 7.35, "2461": 7.35}
PROTECTIONS = {"NONE": float("inf")} | {f"PROT{volts}": float(volts) for volts in (2, 5, 10, 20, 40, 60, 80, 100)}
OVERFLOW = "9.9E+37"
LIMITING_SHARE = 0.995
"""A current this near to its limit is limited."""


class SmuOptions(BenchOptions):
    """An emulated unit and its cell."""

    model: Literal["2450", "2460", "2461"] = "2450"
    serial: str = "04400001"
    language: Literal["SCPI", "TSP"] = "SCPI"
    speed: Positive = 1.0
    """Seconds that the cell ages in one of the unit's, which are the host's."""
    found_on_ma: float = 0.0
    """Current that it drives already when it is plugged in, as a host that died would leave it."""


@dataclass(frozen=True)
class Reading:
    """One entry of the buffer."""

    t_s: float
    source: float
    value: float


class Instrument:
    """State, buffer and trigger model of one unit. `run` brings all to a time; `execute` takes one program message."""

    def __init__(self, options: SmuOptions) -> None:
        self.options = options
        self.cell = BenchCell(options, ageing=options.speed, longest_leap_s=float("inf"))  # goes on with no host to ask
        self.errors = ErrorQueue()
        self.triggers = trigger.TriggerModel(self)
        self.buffer: deque[Reading] = deque(maxlen=BUFFER_POINTS)
        self.dropped = 0
        """Readings that a full buffer lost, from its last clearing on."""
        self.stuck_on = False
        """A fault: the relay does not open any more."""
        self.reversed = False
        """A fault: the cell's leads are reversed; readings only."""
        self.on = False
        self.source_v, self.limit_a = 0.0, 1.05e-4
        self._reset()
        self._table = CommandTable(self._basics() | self._source() | self._sense() | self._buffers() | self._triggers())
        if options.found_on_ma:
            charging = options.found_on_ma > 0
            self.source_v, self.limit_a = (4.4 if charging else 2.0), abs(options.found_on_ma) / 1e3
            self.output(True)

    def _reset(self) -> None:
        self.off_state = {"VOLTage": "NORMal", "CURRent": "NORMal"}
        self.output(False)
        self.source_function, self.sense_function = "VOLTage", "CURRent"
        self.source_v = self.source_a = 0.0
        self.limit_a, self.limit_v = 1.05e-4, 2.1
        self.protection = "PROT20"
        self.protection_tripped = False
        self.remote_sense = {"VOLTage": False, "CURRent": False}
        self.readback = {"VOLTage": True, "CURRent": True}
        self.nplc = 1.0
        self.triggers.load_empty()

    # -- the machine ------------------------------------------------------------

    @property
    def t_s(self) -> float:
        """Its clock."""
        return self.cell.t_s

    def run(self, now_s: float) -> None:
        """Let time pass until `now_s` (`time.monotonic()`), with what the trigger model does meanwhile."""
        until_s = self.cell.due_s(now_s)
        while (due_s := self.triggers.next_s) is not None and due_s <= until_s:
            self._pass(due_s)
            self.triggers.run(due_s)
        self._pass(until_s)
        self.cell.publish(now_s)

    def _pass(self, until_s: float) -> None:
        self.cell.advance(until_s)
        if self.on and abs(self.cell.electrode.voltage_v) > PROTECTIONS[self.protection]:
            self.protection_tripped = True
            self.output(False)

    def output(self, on: bool) -> None:
        """Switch the output: the set points take effect, or the off state does."""
        self.on = on or (self.on and self.stuck_on)
        self.apply()

    def apply(self) -> None:
        """Hand the set points to the cell."""
        electrode = self.cell.electrode
        if self.on and self.source_function == "VOLTage":
            electrode.set_voltage(self.source_v, self.limit_a * 1e3)
        elif self.on:
            electrode.set_current(self.source_a * 1e3)
        elif self.off_state["VOLTage"] == "NORMal":
            electrode.set_voltage(0.0, 0.1 * self.limit_a * 1e3)  # the "normal" off state drains a cell
        else:
            electrode.rest()

    def measure(self) -> float:
        """A reading of the sense function into the buffer."""
        voltage_v, current_ma = self.cell.read()
        if self.reversed:
            voltage_v, current_ma = -voltage_v, -current_ma
        value = voltage_v if self.sense_function == "VOLTage" else current_ma / 1e3
        source = voltage_v if self.source_function == "VOLTage" else current_ma / 1e3
        self.dropped += len(self.buffer) == BUFFER_POINTS
        self.buffer.append(Reading(self.t_s, source, value))
        return value

    def clear(self) -> None:
        """Empty the buffer; relative times begin anew with the next reading."""
        self.buffer.clear()
        self.dropped = 0

    @property
    def takes_s(self) -> float:
        """How long a reading takes; the source is read back in a measurement of its own."""
        return self.nplc * (1 + self.readback[self.source_function]) / MAINS_HZ + OVERHEAD_S

    @property
    def limiting(self) -> bool:
        """Whether the current is at its limit."""
        current_a = abs(self.cell.electrode.current_ma) / 1e3
        return self.on and self.source_function == "VOLTage" and current_a >= LIMITING_SHARE * self.limit_a

    # -- SCPI ------------------------------------------------------------

    def execute(self, message: str) -> str | None:
        """Carry out one program message; what its queries answer, joined, or None."""
        answers = []
        for command in commands(message):
            try:
                answer = self._table.handler(command.header)(command.parameters)
            except ScpiError as error:
                self.errors.add((error.code, error.text))
                break
            if answer is not None:
                answers.append(answer)
        return ";".join(answers) if answers else None

    def _basics(self) -> dict[str, Handler]:
        return {
            "*IDN?": lambda p: f"KEITHLEY INSTRUMENTS,MODEL {self.options.model},{self.options.serial},1.7.12b",
            "*LANG?": lambda p: self.options.language,
            "*CLS": lambda p: self.errors.clear(),
            "*RST": lambda p: self._reset(),
            "*OPC?": lambda p: "1",
            "*WAI": lambda p: None,
            "*STB?": lambda p: str(4 * bool(len(self.errors))),
            "*ESR?": lambda p: "0",
            "SYSTem:ERRor[:NEXT]?": lambda p: self.errors.take(),
            "SYSTem:ERRor:COUNt?": lambda p: str(len(self.errors)),
            "OUTPut[:STATe]": lambda p: self._output(switch(p)),
            "OUTPut[:STATe]?": lambda p: str(int(self.on)),
            "OUTPut[:VOLTage]:SMODe": self._set_off_state,
            "OUTPut[:VOLTage]:SMODe?": lambda p: self.off_state["VOLTage"][:4].upper(),
        }

    def _output(self, on: bool) -> None:
        if on and self.triggers.state == "RUNNING":
            raise ScpiError(CONFLICT)
        self.protection_tripped = self.protection_tripped and not on
        self.output(on)

    def _set_off_state(self, p: list[str]) -> None:
        kind = choice(p, "NORMal", "HIMPedance", "ZERO", "GUARd")
        self.off_state = dict.fromkeys(self.off_state, kind)
        if not self.on:
            self.apply()

    def _source(self) -> dict[str, Handler]:
        most_a = MOST_CURRENT_A[self.options.model]
        return {
            "SOURce:FUNCtion[:MODE]": lambda p: self._set_source_function(choice(p, "VOLTage", "CURRent")),
            "SOURce:FUNCtion[:MODE]?": lambda p: self.source_function[:4].upper(),
            "SOURce:VOLTage[:LEVel]": lambda p: self._set("source_v", number(p, 0, -MOST_VOLTAGE_V, MOST_VOLTAGE_V)),
            "SOURce:VOLTage[:LEVel]?": lambda p: f"{self.source_v:.6E}",
            "SOURce:VOLTage:RANGe": _checked(-MOST_VOLTAGE_V, MOST_VOLTAGE_V),
            "SOURce:VOLTage:ILIMit[:LEVel]": lambda p: self._set("limit_a", number(p, 0, 1e-9, most_a)),
            "SOURce:VOLTage:ILIMit[:LEVel]?": lambda p: f"{self.limit_a:.6E}",
            "SOURce:VOLTage:ILIMit[:LEVel]:TRIPped?": lambda p: str(int(self.limiting)),
            "SOURce:VOLTage:PROTection[:LEVel]": lambda p: self._set("protection", self._known_protection(p)),
            "SOURce:VOLTage:PROTection[:LEVel]?": lambda p: self.protection,
            "SOURce:VOLTage:PROTection[:LEVel]:TRIPped?": lambda p: str(int(self.protection_tripped)),
            "SOURce:VOLTage:READ:BACK": partial(self._set_readback, "VOLTage"),
            "SOURce:CURRent[:LEVel]": lambda p: self._set("source_a", number(p, 0, -most_a, most_a)),
            "SOURce:CURRent[:LEVel]?": lambda p: f"{self.source_a:.6E}",
            "SOURce:CURRent:RANGe": _checked(-most_a, most_a),
            "SOURce:CURRent:VLIMit[:LEVel]": lambda p: self._set("limit_v", number(p, 0, 0.02, MOST_VOLTAGE_V)),
            "SOURce:CURRent:READ:BACK": partial(self._set_readback, "CURRent"),
        }

    def _set_readback(self, kind: str, p: list[str]) -> None:
        self.readback[kind] = switch(p)

    def _set(self, name: str, value: float | str) -> None:
        setattr(self, name, value)
        self.apply()

    def _set_source_function(self, kind: str) -> None:
        if self.on and kind != self.source_function:
            self.output(False)  # as the instrument does
        self.source_function = kind

    @staticmethod
    def _known_protection(p: list[str]) -> str:
        if not p:
            raise ScpiError(MISSING)
        if p[0].upper() not in PROTECTIONS:
            raise ScpiError(OUT_OF_RANGE)
        return p[0].upper()

    def _sense(self) -> dict[str, Handler]:
        found: dict[str, Handler] = {
            "SENSe:FUNCtion[:ON]": lambda p: setattr(self, "sense_function", choice(p, "VOLTage", "CURRent")),
            "SENSe:FUNCtion[:ON]?": lambda p: f'"{self.sense_function[:4].upper()}:DC"',
            "READ?": self._read,
        }
        for kind, most in (("CURRent", MOST_CURRENT_A[self.options.model]), ("VOLTage", 210.0)):
            found |= {
                f"SENSe:{kind}[:DC]:RSENse": partial(self._set_remote_sense, kind),
                f"SENSe:{kind}[:DC]:RSENse?": partial(self._told_remote_sense, kind),
                f"SENSe:{kind}[:DC]:RANGe[:UPPer]": _checked(-most, most),
                f"SENSe:{kind}[:DC]:RANGe:AUTO": _switched,
                f"SENSe:{kind}[:DC]:NPLCycles": lambda p: setattr(self, "nplc", number(p, 0, 0.01, 10.0)),
            }
        return found

    def _set_remote_sense(self, kind: str, p: list[str]) -> None:
        self.remote_sense[kind] = switch(p)

    def _told_remote_sense(self, kind: str, p: list[str]) -> str:
        return str(int(self.remote_sense[kind]))

    def _read(self, p: list[str]) -> str:
        """A reading now, as the elements asked for; the value alone by default."""
        if self.triggers.state == "RUNNING":
            raise ScpiError(CONFLICT)
        self.measure()
        return self._told(self.buffer[-1], [name.upper() for name in p[1:]] or ["READ"])

    def _told(self, reading: Reading, elements: list[str]) -> str:
        known = {
            "SOUR": f"{reading.source:.6E}",
            "READ": f"{reading.value:.6E}",
            "REL": f"{reading.t_s - self.buffer[0].t_s:.6f}",
        }
        if unknown := [name for name in elements if name not in known]:
            raise ScpiError((-104, f"Data type error; {unknown[0]}"))
        return ",".join(known[name] for name in elements)

    def _buffers(self) -> dict[str, Handler]:
        return {
            "TRACe:CLEar": lambda p: self.clear(),
            "TRACe:ACTual?": lambda p: str(len(self.buffer)),
            "TRACe:ACTual:STARt?": lambda p: str(self.dropped % BUFFER_POINTS + 1 if self.buffer else 0),
            "TRACe:ACTual:END?": lambda p: str(len(self.buffer)),
            "TRACe:DATA?": self._data,
        }

    def _data(self, p: list[str]) -> str:
        first = int(number(p, 0, 1, len(self.buffer)))
        last = int(number(p, 1, first, len(self.buffer)))
        elements = [name.upper() for name in p[3:]] or ["READ"]
        return ",".join(self._told(self.buffer[k], elements) for k in range(first - 1, last))

    def _triggers(self) -> dict[str, Handler]:
        model, put = self.triggers, self._put
        return {
            "TRIGger:LOAD": lambda p: model.load_empty(),
            "TRIGger:BLOCk:BUFFer:CLEar": lambda p: put(p, trigger.clear_buffer(_block(p))),
            "TRIGger:BLOCk:SOURce:STATe": lambda p: put(p, trigger.source_state(_block(p), on=switch(p, 1))),
            "TRIGger:BLOCk:DELay:CONStant": lambda p: put(p, trigger.delay(_block(p), number(p, 1, 0.0, 1e4))),
            "TRIGger:BLOCk:MEASure": lambda p: put(p, trigger.measure(_block(p), lambda: self.takes_s)),
            "TRIGger:BLOCk:MDIGitize": lambda p: put(p, trigger.measure(_block(p), lambda: self.takes_s)),
            "TRIGger:BLOCk:BRANch:LIMit:CONStant": lambda p: put(p, _limit(p)),
            "TRIGger:BLOCk:BRANch:COUNter": lambda p: put(p, _counter(p)),
            "TRIGger:BLOCk:BRANch:ALWays": lambda p: put(p, trigger.branch_always(_block(p, 1))),
            "TRIGger:BLOCk:LIST?": lambda p: "\n".join(f"{k}) {b.text}" for k, b in sorted(model.blocks.items())),
            "TRIGger:STATe?": self._told_state,
            "INITiate[:IMMediate]": lambda p: self._initiate(),
            "ABORt": lambda p: model.abort(self.t_s),
        }

    def _told_state(self, p: list[str]) -> str:
        state = self.triggers.seen_state(self.t_s)
        return f"{state};{state};{self.triggers.at}"

    def _put(self, p: list[str], block: trigger.Block) -> None:
        if self.triggers.state == "RUNNING":
            raise ScpiError(CONFLICT)
        self.triggers.put(_block(p), block)

    def _initiate(self) -> None:
        blocks = self.triggers.blocks
        if self.triggers.state == "RUNNING" or sorted(blocks) != list(range(1, len(blocks) + 1)) or not blocks:
            raise ScpiError(CONFLICT)
        self.triggers.start(self.t_s)

    def close(self) -> None:
        """Let go of the cell."""
        self.cell.close()


def _block(p: list[str], place: int = 0) -> int:
    return int(number(p, place, 1, trigger.MOST_BLOCKS))


def _limit(p: list[str]) -> trigger.Block:
    kind = choice(p, "INside", "OUTside", "ABOVe", "BELow", place=1)
    low, high = number(p, 2), number(p, 3)
    if kind in ("INside", "OUTside") and not low < high:
        raise ScpiError(OUT_OF_RANGE)
    return trigger.branch_limit(_block(p), kind, low, high, _block(p, 4))


def _counter(p: list[str]) -> trigger.Block:
    return trigger.branch_counter(_block(p), int(number(p, 1, 1, 1e9)), _block(p, 2))


def _checked(low: float, high: float) -> Handler:
    """A setting that changes nothing here, but has its range."""

    def handle(p: list[str]) -> None:
        number(p, 0, low, high)

    return handle


def _switched(p: list[str]) -> None:
    """A switch that changes nothing here."""
    switch(p)
