"""Scripts that bound themselves: on every way through one the cell ends off, and every pass of a loop tests its bounds.

A script runs on the device whether the host lives or not. Its loops test, at every sample: voltage on both sides,
current on both sides, time, charge on both sides, and the step's own end. A comparison with a reading that is no number
fails the test. The last data package says by its flag why the script ended: see `Ended`.

The step's own end lies a little beyond the host's, so that the host ends a step while it lives: samples in a row, and
slack in time and charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from hw.potentiostat.contract import StepBounds

MOST = 1 << 27  # a number's whole part, as in data packages
POWERS = (("", 0), ("m", -3), ("u", -6), ("n", -9), ("p", -12))
BANDWIDTH = 5.85  # of the maker's own battery scripts: Hz times the interval
END_SAMPLES = 3  # beyond the end voltage, in a row: the host acts on the first once the current has settled
TAPER_SAMPLES = 5  # below the end current; the host acts on the second
SLACK_SHARE = 0.01
MARGIN_V = 0.2
MARGIN_SHARE = 1.2
SLACK_INTERVALS = 20
SETTLE_S = 0.02  # between a set point and a single reading
FEEL_SHARE = 1e-3  # of the bound: the first current of those that feel out a hold
FEEL_MOST = 60  # of them
FEEL_GROWTH = 2.0
FEEL_NEAR_V = 2e-3  # a hold this near to the open circuit needs no feeling out
FEEL_SEEN_V = 1e-3  # a response above this is more than noise
FEEL_DONE = 1.01  # of the way to the voltage is left at most, by the response so far


class Ended(IntEnum):
    """Why a script ended: the value ``ja`` of its last data package."""

    ABORTED = 0
    TIME = 1
    MAX_VOLTAGE = 2
    MIN_VOLTAGE = 3
    MAX_CURRENT = 4
    CHARGE = 5
    STEP_VOLTAGE = 6
    STEP_CURRENT = 7
    NO_NUMBER = 9


@dataclass(frozen=True)
class Window:
    """What the device itself keeps to at every sample."""

    min_voltage_v: float
    max_voltage_v: float
    max_current_ma: float


@dataclass(frozen=True)
class Frame:
    """What all scripts of a device have in common."""

    window: Window
    interval_s: float
    default_bound_s: float
    reach: Window
    """What the device can do: ranges are set a little wider than the window, so that a reading beyond it is one."""


def literal(value: float) -> str:
    """The number as the language writes it: whole, with an SI prefix; exact to a pico-unit or 27 bits."""
    best = ""
    for prefix, power in POWERS:
        whole = round(value * 10**-power)
        if abs(whole) >= MOST:
            break
        best = f"{whole}{prefix}"
        if math.isclose(whole / 10**-power, value, rel_tol=1e-12, abs_tol=1e-15):
            break
    if not best:
        raise ValueError(f"{value:g} cannot be written")
    return best


def watch_script(frame: Frame, duration_s: float) -> str:
    """Open circuit, watched for a while."""
    body = ["timer_get t", "pck_start", "pck_add t", "pck_add e", "pck_end"]
    return _text(
        ["var t", "var e", "cell_off", "set_pgstat_chan 0", "set_pgstat_mode 3", *_voltage_range("ab", frame)],
        ["timer_start", f"meas_loop_ocp e {literal(frame.interval_s)} {literal(duration_s)}", *_in(body), "endloop"],
        ["on_finished:", "cell_off"],
    )


def probe_script() -> str:
    """Does not touch the cell: one reading at open circuit, which a device whose cell is on refuses with error 0014."""
    loop = ["meas_loop_ocp e 50m 50m", *_in(["pck_start", "pck_add e", "pck_end"]), "endloop"]
    return _text(["var e"], loop)


def off_script() -> str:
    """Open the circuit, whatever went before."""
    return _text(["cell_off"])


def current_script(frame: Frame, current_ma: float, bounds: StepBounds) -> str:
    """Constant current (positive charges) until a bound is met."""
    current_a, most_s = current_ma / 1e3, bound_s(frame, bounds)
    loop = f"meas_loop_cp e i {literal(current_a)} {literal(frame.interval_s)} {literal(most_s)}"
    charge = _charge(frame, bounds, abs(current_a))
    body = [*_inside(frame, most_s), *charge, *_step_voltage(current_ma, bounds), *_send()]
    return _text(
        _variables(),
        [f"store_var s {literal(current_a)} db", *_galvanostat(frame, abs(current_a)), "set_i 0", "cell_on"],
        ["timer_start", loop, *_in(body), "endloop"],
        _verdict(frame, most_s),
    )


def voltage_script(frame: Frame, voltage_v: float, max_current_ma: float, bounds: StepBounds) -> str:
    """Hold a voltage. Where that took more than `max_current_ma`, drive this current until the voltage is reached.

    The mode that holds voltages does not bound currents, so a rising one feels out beforehand what it would take.
    """
    most_s, most_a = bound_s(frame, bounds), max_current_ma / 1e3
    range_a = min(MARGIN_SHARE * frame.window.max_current_ma, frame.reach.max_current_ma) / 1e3
    times = f"{literal(frame.interval_s)} {literal(most_s)}"
    common = [*_inside(frame, most_s), *_charge(frame, bounds, most_a)]
    approach = [f"meas_loop_cp e i s {times}", *_in([*common, *_reached(voltage_v), *_send()]), "endloop"]
    hold = [
        "cell_off", "set_pgstat_mode 3", f"set_max_bandwidth {literal(BANDWIDTH / frame.interval_s)}",
        *_voltage_range("da", frame), f"set_range ba {literal(range_a)}",
        f"set_e {literal(voltage_v)}", "cell_on", "store_var n 0i ja", f"store_var s {literal(voltage_v)} da",
        f"meas_loop_ca e i {literal(voltage_v)} {times}", *_in([*common, *_taper(bounds), *_send()]), "endloop",
    ]  # fmt: skip
    return _text(
        [*_variables(), *(f"var {name}" for name in "grwy")],
        [*_galvanostat(frame, most_a), *_feel_out(voltage_v, most_a), "timer_start"],
        ["if x == 1i", *_in([*approach, "if n == 0i", *_in(["if f == 0i", "  store_var f 1i ja", "endif"]), "endif"])],
        ["endif", "if f == 0i", *_in(hold), "endif"],
        _verdict(frame, most_s),
    )


def bound_s(frame: Frame, bounds: StepBounds) -> float:
    """Time after which the device itself ends the script: the step's, a little later."""
    longest_s = frame.default_bound_s if bounds.longest_s is None else bounds.longest_s
    return max(longest_s, 0.0) * (1 + SLACK_SHARE) + SLACK_INTERVALS * frame.interval_s


def _text(*parts: list[str]) -> str:
    return "".join(f"{line}\n" for part in parts for line in part)


def _in(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _variables() -> list[str]:
    """Time, potential, current, set point; change and last of time, charge; flag, samples in a row, tests passed."""
    zeros = ["store_var u 0 eb", "store_var q 0 ja"]
    counts = [f"store_var {name} 0i ja" for name in "fnx"]
    return [*(f"var {name}" for name in "teisduqfnx"), *zeros, *counts, "set_pgstat_chan 0"]


def _voltage_range(kind: str, frame: Frame) -> list[str]:
    low_v = max(frame.window.min_voltage_v - MARGIN_V, frame.reach.min_voltage_v)
    high_v = min(frame.window.max_voltage_v + MARGIN_V, frame.reach.max_voltage_v)
    return [f"set_range_minmax {kind} {literal(low_v)} {literal(high_v)}"]


def _galvanostat(frame: Frame, current_a: float) -> list[str]:
    bandwidth = f"set_max_bandwidth {literal(BANDWIDTH / frame.interval_s)}"
    return ["set_pgstat_mode 6", bandwidth, *_voltage_range("ab", frame), f"set_range db {literal(current_a)}"]


def _inside(frame: Frame, most_s: float) -> list[str]:
    """Leave the loop unless every reading is a number inside the window."""
    window = frame.window
    most_a = literal(window.max_current_ma / 1e3)
    tests = [
        f"t < {literal(most_s)}",
        f"e < {literal(window.max_voltage_v)}",
        f"e > {literal(window.min_voltage_v)}",
        f"i < {most_a}",
        f"i > {literal(-window.max_current_ma / 1e3)}",
    ]
    lines = ["timer_get t", "store_var x 0i ja"]
    for test in tests:
        lines += [f"if {test}", "  add_var x 1i", "endif"]
    return [*lines, f"if x != {len(tests)}i", "  store_var f 9i ja", "  breakloop", "endif"]


def _charge(frame: Frame, bounds: StepBounds, drive_a: float) -> list[str]:
    """Add the sample's charge up; leave the loop beyond the step's, either way."""
    lines = ["copy_var t d", "sub_var d u", "copy_var t u", "mul_var d i", "add_var q d"]
    if bounds.most_mah is None:
        return lines
    slack_c = SLACK_INTERVALS * frame.interval_s * drive_a
    most_c = max(bounds.most_mah, 0.0) * 3.6 * (1 + SLACK_SHARE) + slack_c
    for test in (f"q >= {literal(most_c)}", f"q <= {literal(-most_c)}"):
        lines += [f"if {test}", "  store_var f 5i ja", "  breakloop", "endif"]
    return lines


def _step_voltage(current_ma: float, bounds: StepBounds) -> list[str]:
    if bounds.end_voltage_v is None:
        return []
    test = f"e {'>=' if current_ma >= 0 else '<='} {literal(bounds.end_voltage_v)}"
    return [f"if {test}", *_in(_count(END_SAMPLES, Ended.STEP_VOLTAGE)), "else", "  store_var n 0i ja", "endif"]


def _taper(bounds: StepBounds) -> list[str]:
    if bounds.end_current_ma is None:
        return []
    end_a = bounds.end_current_ma / 1e3
    small = ["store_var x 0i ja", f"if i <= {literal(end_a)}", f"  if i >= {literal(-end_a)}", "    store_var x 1i ja"]
    counted = ["if x == 1i", *_in(_count(TAPER_SAMPLES, Ended.STEP_CURRENT)), "else", "  store_var n 0i ja", "endif"]
    return [*small, "  endif", "endif", *counted]


def _count(samples: int, flag: Ended) -> list[str]:
    leave = [f"if n >= {samples}i", f"  store_var f {flag.value}i ja", "  breakloop", "endif"]
    return ["add_var n 1i", *leave]


def _feel_out(voltage_v: float, most_a: float) -> list[str]:
    """Turn the current up until the potential all but stands at the voltage, or the bound is reached.

    Sets `s` to the current that is driven towards the voltage, and x = 1 when it has to be driven before holding. The
    response bends downwards with current, so that a step up by the ratio of what is wanted to what is there stays
    below the voltage. Uses g: what is wanted; r: what is there; w: the direction; d: the current's size; q: the factor.
    """
    towards = ["if g < 0", *_in(["store_var w -1 ja", "mul_var g w"]), "endif"]
    factor = [f"store_var q {literal(FEEL_GROWTH)} ja", f"if r > {literal(FEEL_SEEN_V)}"]
    factor += _in(["copy_var g y", "div_var y r", "if y < q", "  copy_var y q", "endif"])
    step = [
        'send_string "feeling"', "add_var n 1i", "copy_var d s", "mul_var s w", "alter_vartype s db", "set_i s",
        f"meas {literal(SETTLE_S)} e ab", "copy_var e r", "sub_var r u", "mul_var r w", *factor, "endif",
        f"if q < {literal(FEEL_DONE)}", "  store_var x 0i ja", "  breakloop", "endif", "mul_var d q",
        f"if d >= {literal(most_a)}", f"  store_var d {literal(most_a)} db", "  breakloop", "endif",
    ]  # fmt: skip
    return [
        f"meas {literal(SETTLE_S)} e ab", "copy_var e u", f"store_var g {literal(voltage_v)} ab", "sub_var g e",
        "store_var w 1 ja", *towards, f"store_var d {literal(FEEL_SHARE * most_a)} db", "set_i 0", "cell_on",
        f"if g > {literal(FEEL_NEAR_V)}",
        *_in(["store_var x 1i ja", f"loop n < {FEEL_MOST}i", *_in(step), "endloop"]), "endif",
        "copy_var d s", "mul_var s w", "alter_vartype s db",
        "store_var u 0 eb", "store_var q 0 ja", "store_var n 0i ja",
    ]  # fmt: skip


def _reached(voltage_v: float) -> list[str]:
    """Leave the approach once the potential has passed the voltage on the side that `s` drives to."""
    leave = ["store_var n 1i ja", "breakloop"]
    beyond = ["copy_var e g", f"sub_var g {literal(voltage_v)}", "mul_var g w"]
    return [*beyond, "if g >= 0", *_in(leave), "endif"]


def _send() -> list[str]:
    return ["pck_start", *(f"pck_add {name}" for name in "teis"), "pck_end"]


def _verdict(frame: Frame, most_s: float) -> list[str]:
    """The cell off, then why: the tests that were failed are looked at once nothing hangs on it any more."""
    window = frame.window
    most_a = literal(window.max_current_ma / 1e3)
    why = [
        (f"t >= {literal(most_s)}", Ended.TIME),
        (f"e >= {literal(window.max_voltage_v)}", Ended.MAX_VOLTAGE),
        (f"e <= {literal(window.min_voltage_v)}", Ended.MIN_VOLTAGE),
        (f"i >= {most_a}", Ended.MAX_CURRENT),
        (f"i <= {literal(-window.max_current_ma / 1e3)}", Ended.MAX_CURRENT),
    ]
    lines = ["cell_off", "if f == 9i"]
    for test, flag in why:
        lines += [f"  if {test}", f"    store_var f {flag.value}i ja", "  endif"]
    return [*lines, "endif", "if f == 0i", "  store_var f 1i ja", "endif", "on_finished:", *_last_words()]


def _last_words() -> list[str]:
    return ["cell_off", "pck_start", *(f"pck_add {name}" for name in "teisf"), "pck_end"]
