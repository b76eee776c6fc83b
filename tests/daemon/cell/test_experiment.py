from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.cell.experiment import Current, Ends, Step, parse_experiment, parse_step
from daemon.errors import ExperimentError, ExperimentReason

HOUR = 3600.0


def charge(value: float, unit: str, **ends: object) -> Step:
    return Step("charge", Ends(**ends), current=Current(value, unit))  # type: ignore[arg-type]


def discharge(value: float, unit: str, **ends: object) -> Step:
    return Step("discharge", Ends(**ends), current=Current(value, unit))  # type: ignore[arg-type]


def hold(voltage_v: float, **ends: object) -> Step:
    return Step("hold", Ends(**ends), voltage_v=voltage_v)  # type: ignore[arg-type]


def rest(seconds: float) -> Step:
    return Step("rest", Ends(duration_s=seconds))


PYBAMM_DOCUMENTED = [
    ("Discharge at 1C for 0.5 hours", discharge(1, "C", duration_s=1800)),
    ("Discharge at C/20 for 0.5 hours", discharge(1 / 20, "C", duration_s=1800)),
    ("Charge at 0.5 C for 45 minutes", charge(0.5, "C", duration_s=2700)),
    ("Discharge at 1 A for 0.5 hours", discharge(1000, "mA", duration_s=1800)),
    ("Discharge at 1 A for 90 seconds", discharge(1000, "mA", duration_s=90)),
    ("Charge at 200 mA for 45 minutes", charge(200, "mA", duration_s=2700)),
    ("Charge at 200mA for 45 minutes (1 minute period)", charge(200, "mA", duration_s=2700)),
    ("Rest for 10 minutes", rest(600)),
    ("Rest for 10 minutes (5 minute period)", rest(600)),
    ("Hold at 1V for 20 seconds", hold(1, duration_s=20)),
    ("Charge at 1 C until 4.1V", charge(1, "C", voltage_v=4.1)),
    ("Hold at 4.1 V until 50mA", hold(4.1, current=Current(50, "mA"))),
    ("Hold at 4.1 V until 50 mA", hold(4.1, current=Current(50, "mA"))),
    ("Hold at 3V until C/50", hold(3, current=Current(1 / 50, "C"))),
    ("Discharge at C/3 for 2 hours or until 2.5 V", discharge(1 / 3, "C", duration_s=7200, voltage_v=2.5)),
]
OTHERS = [
    ("Charge at 1C until 4.2 V", charge(1, "C", voltage_v=4.2)),
    ("Discharge at C/20 for 10 hours", discharge(1 / 20, "C", duration_s=10 * HOUR)),
    ("Discharge at 0.5C for 30 minutes or until 3.0 V", discharge(0.5, "C", duration_s=1800, voltage_v=3.0)),
    ("Charge at 1 A until 4.2V", charge(1000, "mA", voltage_v=4.2)),
    ("Hold at 4.2V until 50 mA", hold(4.2, current=Current(50, "mA"))),
    ("Hold at 4.2 V for 1 hour", hold(4.2, duration_s=HOUR)),
    ("Hold at 4.2 V for 1 hour or until C/50", hold(4.2, duration_s=HOUR, current=Current(1 / 50, "C"))),
    ("Rest for 1 hour", rest(HOUR)),
    ("  rest   FOR 1\thr ", rest(HOUR)),
    ("CHARGE AT 2 MA UNTIL 4200 MV", charge(2, "mA", voltage_v=4.2)),
    ("Rest for 90s", rest(90)),
    ("Rest for 90 sec", rest(90)),
    ("Rest for 5 min", rest(300)),
    ("Rest for 5 m", rest(300)),
    ("Rest for .5h", rest(1800)),
    ("Rest for 1e3 s", rest(1000)),
    ("Discharge at 1C until 0.1 mAh", discharge(1, "C", charge_mah=0.1)),
    ("Discharge at 1C until 2 Ah", discharge(1, "C", charge_mah=2000)),
    ("Discharge at 1C until 2 A.h", discharge(1, "C", charge_mah=2000)),
    ("Charge at 50 uA until 4 V", charge(0.05, "mA", voltage_v=4)),
    ("Charge at 50 µA until 4 V", charge(0.05, "mA", voltage_v=4)),
    ("Charge at 50 μA until 4 V", charge(0.05, "mA", voltage_v=4)),
    ("Charge at c / 10 until -0.1 V", charge(0.1, "C", voltage_v=-0.1)),
    (
        "Charge at 1C for 1 hour or until 4.2 V or until 1 mAh",
        charge(1, "C", duration_s=HOUR, voltage_v=4.2, charge_mah=1),
    ),
    ("Charge at 1C until 4.2 V or for 1 hour", charge(1, "C", duration_s=HOUR, voltage_v=4.2)),
]


@pytest.mark.parametrize(("text", "step"), PYBAMM_DOCUMENTED + OTHERS)
def test_reads(text: str, step: Step) -> None:
    assert parse_step(text) == step
    assert parse_step(str(step)) == step


REFUSED = [
    ("", ExperimentReason.SYNTAX, "empty"),
    ("Chrge at 1C until 4.2 V", ExperimentReason.SYNTAX, "begins with 'chrge'"),
    ("Charge", ExperimentReason.SYNTAX, "at which current"),
    ("Hold for 1 hour", ExperimentReason.SYNTAX, "at which voltage"),
    ("Charge 1C until 4.2 V", ExperimentReason.SYNTAX, "'1c' is not understood"),
    ("Charge at 1C until", ExperimentReason.SYNTAX, "'1c until'"),
    ("Charge at 1 Q for 1 hour", ExperimentReason.SYNTAX, "'q' is not a unit"),
    ("Charge at 1C until 4,2 V", ExperimentReason.SYNTAX, "'4,2 v'"),
    ("Charge at 1C for 1 fortnight", ExperimentReason.SYNTAX, "'fortnight'"),
    ("Charge at 1C for 1 hour for 2 hours", ExperimentReason.SYNTAX, "two ends of the same kind"),
    ("Rest (10 minutes)", ExperimentReason.SYNTAX, "'(10 minutes)' is not understood"),
    ("Rest at 1 mA for 1 hour", ExperimentReason.SYNTAX, "no current or voltage"),
    ("Rest for 1 hour or until 3 V", ExperimentReason.SYNTAX, "ends by time only"),
    ("Charge at 1C for 1 hour" + "x" * 300, ExperimentReason.SYNTAX, "at most 200"),
    ("Charge at ١C for 1 hour", ExperimentReason.SYNTAX, "takes a current"),
    ("Charge at 1C", ExperimentReason.UNBOUNDED, "never ends"),
    ("Hold at 4.2 V", ExperimentReason.UNBOUNDED, "never ends"),
    ("Rest", ExperimentReason.UNBOUNDED, "never ends"),
    ("Discharge at 1W for 0.5 hours", ExperimentReason.UNSUPPORTED, "is a power"),
    ("Charge at 200mW for 45 minutes", ExperimentReason.UNSUPPORTED, "is a power"),
    ("Discharge at 4 Ohm for 1 hour", ExperimentReason.UNSUPPORTED, "is a resistance"),
    ("Charge at 1C until 50%", ExperimentReason.UNSUPPORTED, "is a state of charge"),
    ("Charge at 1C for 1 hour at 25oC", ExperimentReason.UNSUPPORTED, "temperature"),
    ("Charge at 1C for 1 hour at 298.15 K", ExperimentReason.UNSUPPORTED, "temperature"),
    ("Run US06 (A)", ExperimentReason.UNSUPPORTED, "drive cycles"),
    ("Charge at 0 A for 1 hour", ExperimentReason.BAD_VALUE, "write 'Rest'"),
    ("Charge at -1 A for 1 hour", ExperimentReason.BAD_VALUE, "verb gives the direction"),
    ("Charge at C/0 for 1 hour", ExperimentReason.BAD_VALUE, "divides by nothing"),
    ("Charge at C/-2 for 1 hour", ExperimentReason.BAD_VALUE, "negative"),
    ("Charge at 4.2 V for 1 hour", ExperimentReason.BAD_VALUE, "is a voltage"),
    ("Hold at 1 A for 1 hour", ExperimentReason.BAD_VALUE, "is a current"),
    ("Hold at 4.2 V until 4.1 V", ExperimentReason.BAD_VALUE, "is a voltage"),
    ("Charge at 1C until 50 mA", ExperimentReason.BAD_VALUE, "is a current"),
    ("Charge at 1C for 5 V", ExperimentReason.BAD_VALUE, "is a voltage"),
    ("Rest for 0 s", ExperimentReason.BAD_VALUE, "longer than nothing"),
    ("Rest for -5 s", ExperimentReason.BAD_VALUE, "longer than nothing"),
    ("Charge at 1C until 0 mAh", ExperimentReason.BAD_VALUE, "must be positive"),
    ("Charge at 1e400 A for 1 hour", ExperimentReason.BAD_VALUE, "too large"),
    ("Rest for 1e308 hours", ExperimentReason.BAD_VALUE, "too large"),
    ("Charge at C/1e-320 for 1 hour", ExperimentReason.BAD_VALUE, "too large"),
    ("Rest for 1 hour (0 minute period)", ExperimentReason.BAD_VALUE, "recording period"),
]


@pytest.mark.parametrize(("text", "reason", "says"), REFUSED)
def test_refuses(text: str, reason: ExperimentReason, says: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        parse_experiment(["Rest for 1 s", text])
    assert caught.value.reason is reason
    assert "step 2" in caught.value.detail
    assert says in caught.value.detail


def test_names_the_text() -> None:
    with pytest.raises(ExperimentError, match=r"step 1 \('Chrge at 1C'\)"):
        parse_experiment(["Chrge at 1C"])


def test_error_is_printable_and_short() -> None:
    with pytest.raises(ExperimentError) as caught:
        parse_step("Charge at \x1b[31m1\x00 for 1 hour")
    assert caught.value.detail.isprintable()
    with pytest.raises(ExperimentError) as caught:
        parse_step("\x00" * 100_000)
    assert len(caught.value.detail) < 300


WORDS = (
    "charge discharge hold rest Rest at for until or 1 4.2 0 -1 1e9 1e999 nan inf C C/2 C/0 A mA V mV h hour minutes s "
    "mAh % W Ohm oC K ( period) (5 minute period) 25oC , . / \x00 ١ µA"
)
words = st.sampled_from(WORDS.split(" "))


@given(st.one_of(st.text(max_size=60), st.lists(words, max_size=12).map(" ".join), st.lists(words).map("".join)))
@example("charge at 5e-324c for 1 s")
@example("charge at 1c for 5e-324 s")
def test_any_text_is_a_step_or_an_experiment_error(text: str) -> None:
    try:
        step = parse_step(text)
    except ExperimentError as error:
        assert error.detail.startswith("step 1")
    else:
        assert parse_step(str(step)) == step


sizes = st.floats(min_value=1e-9, max_value=1e9)
currents = st.one_of(
    st.builds(Current, sizes, st.sampled_from(["mA", "C"])),
    st.integers(1, 1000).map(lambda n: Current(1 / n, "C")),
)
voltages = st.floats(min_value=-10, max_value=10)
durations = st.one_of(sizes, st.integers(1, 1000).map(lambda n: 60.0 * n))


@given(st.sampled_from(["charge", "discharge"]), currents, durations, voltages, sizes, st.integers(1, 7))
def test_rendered_drive_reads_back(
    kind: str, current: Current, duration: float, voltage: float, mah: float, which: int
) -> None:
    ends = Ends(
        duration_s=duration if which & 1 else None,
        voltage_v=voltage if which & 2 else None,
        charge_mah=mah if which & 4 else None,
    )
    step = Step(kind, ends, current=current)  # type: ignore[arg-type]
    assert parse_step(str(step)) == step


@given(voltages, durations, currents, st.booleans())
def test_rendered_hold_reads_back(voltage: float, duration: float, current: Current, tapers: bool) -> None:
    step = Step("hold", Ends(duration_s=duration, current=current if tapers else None), voltage_v=voltage)
    assert parse_step(str(step)) == step


def test_renders_as_people_write() -> None:
    assert [str(step) for step in parse_experiment(["charge at 0.05C until 4200mV", "rest for 3600 s"])] == [
        "Charge at C/20 until 4.2 V",
        "Rest for 1 hour",
    ]


def test_current_in_ma() -> None:
    assert Current(0.5, "C").in_ma(3.0) == 1.5
    assert Current(0.5, "C").in_ma(None) is None
    assert Current(0.5, "mA").in_ma(None) == 0.5
    assert math.isclose(parse_step("Charge at C/3 for 1 s").current.in_ma(3.0) or 0, 1.0)  # type: ignore[union-attr]
