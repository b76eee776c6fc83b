"""What the unit is told, as messages. Names as in the 2450 reference manual (2450-901-01)."""

from __future__ import annotations

import math

BUFFER = '"defbuffer1"'
PROTECTIONS_V = (2, 5, 10, 20, 40)
PROTECTION_MARGIN = 1.05
VOLTMETER_RANGE_A = 1e-7
READING_S = 0.045
"""How long a reading takes: current and voltage at one power line cycle each, and what the unit does beside."""
LEAST_PAUSE_S = 0.001


def _switch(on: bool) -> str:
    return "ON" if on else "OFF"


def joined(messages: list[str]) -> str:
    """As one message: the cell's record has a gap for as long as switching takes."""
    return ";".join(message if message[0] in ":*" else f":{message}" for message in messages)


def prepare(four_wire: bool) -> list[str]:
    """From any state: the output off, known settings, and an off that isolates."""
    return [
        ":ABOR;*RST;:OUTP:SMOD HIMP",  # the normal off state would drain the cell: not for longer than a message
        f"SENS:CURR:RSEN {_switch(four_wire)}",
        f"SENS:VOLT:RSEN {_switch(four_wire)}",
        "SENS:CURR:NPLC 1",
        "SENS:VOLT:NPLC 1",
        "SOUR:VOLT:READ:BACK ON",
        "SOUR:CURR:READ:BACK ON",
        f"TRAC:CLE {BUFFER}",
    ]


def voltmeter(limit_v: float, four_wire: bool) -> list[str]:
    """A source of 0 A in its smallest range, still off."""
    return [
        ":ABOR;:OUTP OFF",
        "SOUR:FUNC CURR",
        f"SOUR:CURR:RANG {VOLTMETER_RANGE_A:g}",
        "SOUR:CURR 0",
        f"SOUR:CURR:VLIM {limit_v:.6g}",
        'SENS:FUNC "VOLT"',
        f"SENS:VOLT:RSEN {_switch(four_wire)}",  # off forgets it
        f"SENS:VOLT:RANG {limit_v:.6g}",
        f"TRAC:CLE {BUFFER}",
    ]


def source(level_v: float, limit_ma: float, max_voltage_v: float, four_wire: bool) -> list[str]:
    """A source of `level_v`, still off, that never gives more than `limit_ma`, with the next protection above."""
    guard = next((f"PROT{v}" for v in PROTECTIONS_V if v >= PROTECTION_MARGIN * max_voltage_v), "NONE")
    return [
        "SOUR:FUNC VOLT",
        'SENS:FUNC "CURR"',
        f"SENS:CURR:RSEN {_switch(four_wire)}",
        f"SENS:CURR:RANG {limit_ma / 1e3:.6g}",
        f"SOUR:VOLT:RANG {max_voltage_v:.6g}",
        f"SOUR:VOLT:PROT {guard}",
        f"SOUR:VOLT:ILIM {limit_ma / 1e3:.6g}",
        f"SOUR:VOLT {level_v:.6g}",
        f"TRAC:CLE {BUFFER}",
    ]


def readings(period_s: float, host_loss_after_s: float) -> list[str]:
    """The trigger model: readings for `host_loss_after_s` at most, then the output opens unless it was begun anew.

    No block switches on: what opened by itself stays open.
    """
    pause_s = max(period_s - READING_S, LEAST_PAUSE_S)
    count = max(2, math.floor(host_loss_after_s / (pause_s + READING_S)))
    return [
        'TRIG:LOAD "Empty"',
        f"TRIG:BLOC:MEAS 1, {BUFFER}",
        f"TRIG:BLOC:DEL:CONS 2, {pause_s:.6g}",
        f"TRIG:BLOC:BRAN:COUN 3, {count}, 1",
        "TRIG:BLOC:SOUR:STAT 4, OFF",
    ]


def redrive(voltage_v: float, limit_ma: float, before_ma: float) -> str:
    """Another level of a source that is on, and readings anew. The smaller limit holds while the voltage changes."""
    levels = [
        f":SOUR:VOLT:ILIM {limit_ma / 1e3:.6g}",
        f":SENS:CURR:RANG {limit_ma / 1e3:.6g}",
        f":SOUR:VOLT {voltage_v:.6g}",
    ]
    return ";".join([":ABOR;*WAI", *(levels[::-1] if limit_ma > before_ma else levels), ":INIT"])
