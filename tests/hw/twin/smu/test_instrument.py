import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.twin.smu.instrument import Instrument, SmuOptions


@pytest.fixture
def unit():
    one = Instrument(SmuOptions(particles=4, capacity_mah=0.5, initial_soc=0.4, speed=1.0))
    one.execute("OUTP:SMOD HIMP")
    yield one
    one.close()


def told(unit: Instrument, *messages: str) -> str | None:
    answers = [unit.execute(message) for message in messages]
    assert unit.execute("SYST:ERR?") == '0,"No error"'
    return answers[-1]


def later(unit: Instrument, passed_s: float) -> None:
    unit.run(unit.cell.host_s(unit.t_s + passed_s))


CHARGE = ("SOUR:FUNC VOLT", 'SENS:FUNC "CURR"', "SOUR:VOLT:ILIM 0.5e-3", "SOUR:VOLT 4.4")
MODEL = (
    "TRIG:LOAD \"Empty\"", "TRIG:BLOC:SOUR:STAT 1, ON", 'TRIG:BLOC:MEAS 2, "defbuffer1"', "TRIG:BLOC:DEL:CONS 3, 0.1",
    "TRIG:BLOC:BRAN:COUN 4, 20, 2", "TRIG:BLOC:SOUR:STAT 5, OFF",
)  # fmt: skip


def test_a_source_is_limited_in_current_until_the_cell_reaches_its_voltage(unit):
    told(unit, *CHARGE, "OUTP ON")
    later(unit, 1.0)
    assert told(unit, "SOUR:VOLT:ILIM:TRIP?") == "1"
    assert float(told(unit, 'READ? "defbuffer1", READ')) == pytest.approx(0.5e-3, rel=0.01)
    low_v = unit.cell.electrode.voltage_v + 1e-3
    told(unit, f"SOUR:VOLT {low_v}")
    later(unit, 600.0)
    assert told(unit, "SOUR:VOLT:ILIM:TRIP?") == "0"
    assert unit.cell.electrode.voltage_v == pytest.approx(low_v, abs=1e-4)


def test_the_trigger_model_runs_with_no_host_and_opens_the_output(unit):
    told(unit, *CHARGE, *MODEL, "INIT")
    assert told(unit, "TRIG:STAT?").startswith("IDLE")  # it looks at itself every 100 ms only
    later(unit, 1.0)
    assert unit.on and told(unit, "TRIG:STAT?").startswith("RUNNING")
    later(unit, 9.0)
    assert not unit.on and not unit.cell.flowing
    assert told(unit, "TRIG:STAT?").startswith("IDLE")
    assert told(unit, 'TRAC:ACT? "defbuffer1"') == "20"
    rows = told(unit, 'TRAC:DATA? 1, 20, "defbuffer1", SOUR, READ, REL').split(",")
    assert len(rows) == 60 and float(rows[2]) == 0.0 and float(rows[-1]) == pytest.approx(19 * 0.142, rel=0.02)


def test_abort_leaves_the_output_as_it_is(unit):
    told(unit, *CHARGE, *MODEL, "INIT")
    later(unit, 0.5)
    told(unit, "ABOR")
    assert told(unit, "TRIG:STAT?").startswith("RUNNING")
    later(unit, 10.0)
    assert unit.on and told(unit, "TRIG:STAT?").startswith("ABORTED")


def test_what_conflicts_with_a_running_model_is_refused(unit):
    told(unit, *CHARGE, *MODEL, "INIT")
    later(unit, 0.01)
    for message in ("INIT", "OUTP ON", 'READ? "defbuffer1"', "TRIG:BLOC:SOUR:STAT 1, ON"):
        assert unit.execute(message) is None
        assert unit.execute("SYST:ERR?").startswith("-221")


def test_a_model_with_a_gap_or_without_blocks_does_not_start(unit):
    unit.execute("INIT")
    unit.execute("TRIG:BLOC:SOUR:STAT 2, ON")
    unit.execute("INIT")
    assert [unit.execute("SYST:ERR?")[:4] for _ in range(2)] == ["-221", "-221"]


def test_a_loop_without_a_delay_fails_and_does_not_hang(unit):
    told(unit, "TRIG:BLOC:BRAN:ALW 1, 1", "INIT")
    later(unit, 0.5)
    later(unit, 0.5)
    assert told(unit, "TRIG:STAT?").startswith("FAILED")


def test_a_loop_with_hardly_a_delay_does_not_hang_either(unit):
    told(unit, "TRIG:BLOC:DEL:CONS 1, 1e-9", "TRIG:BLOC:BRAN:ALW 2, 1", "INIT")
    later(unit, 0.2)
    assert unit.triggers.state == "RUNNING"


def test_a_relay_that_sticks_does_not_close_by_itself(unit):
    unit.stuck_on = True
    told(unit, "OUTP OFF")
    assert not unit.on


def test_cells_that_age_faster_take_as_much_less_charge():
    slow, fast = (Instrument(SmuOptions(particles=4, capacity_mah=0.5, initial_soc=0.4, speed=s)) for s in (1.0, 20.0))
    for unit, passed_s in ((slow, 400.0), (fast, 20.0)):
        told(unit, "OUTP:SMOD HIMP", *CHARGE, "OUTP ON")
        later(unit, passed_s)
        assert unit.t_s == pytest.approx(passed_s, abs=0.5)
    assert fast.cell.electrode.soc == pytest.approx(slow.cell.electrode.soc, abs=2e-3)
    assert fast.cell.electrode.soc - 0.4 == pytest.approx(400 * 0.5 / 3600 / 0.5, rel=0.03)
    slow.close()
    fast.close()


def test_over_voltage_protection_opens_the_output(unit):
    told(unit, *CHARGE, "SOUR:VOLT:PROT PROT2", "OUTP ON")
    later(unit, 0.1)
    assert not unit.on and told(unit, "SOUR:VOLT:PROT:TRIP?") == "1"


def test_the_normal_off_state_drains_a_cell_and_high_impedance_does_not(unit):
    told(unit, *CHARGE, "OUTP ON", "OUTP OFF")
    assert not unit.cell.flowing
    told(unit, "OUTP:SMOD NORM")
    later(unit, 0.1)
    assert unit.cell.electrode.current_ma < 0


def test_branches_on_limits():
    unit = Instrument(SmuOptions(particles=4, initial_soc=0.4))
    unit.execute("OUTP:SMOD HIMP")
    told(unit, *CHARGE[:2], "SOUR:VOLT:ILIM 1e-3", f"SOUR:VOLT {unit.cell.electrode.voltage_v:.4f}")
    told(
        unit, "TRIG:BLOC:SOUR:STAT 1, ON", 'TRIG:BLOC:MEAS 2, "defbuffer1"', "TRIG:BLOC:DEL:CONS 3, 0.1",
        "TRIG:BLOC:BRAN:LIM:CONS 4, IN, -5e-4, 5e-4, 6", "TRIG:BLOC:BRAN:COUN 5, 1000, 2", "TRIG:BLOC:SOUR:STAT 6, OFF",
        "INIT",
    )  # fmt: skip
    later(unit, 5.0)
    assert not unit.on  # hardly any current at the cell's own voltage
    assert unit.execute("TRIG:BLOC:LIST?").count("\n") == 5
    unit.close()


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
def test_any_message_is_taken_or_refused_and_nothing_else(text: str) -> None:
    unit = _shared()
    unit.execute(text)
    assert unit.execute("*CLS") is None


def _shared(made: list[Instrument] = []) -> Instrument:  # noqa: B006 - kept on purpose
    if not made:
        made.append(Instrument(SmuOptions(particles=2)))
    return made[0]


def test_time_goes_on_when_nobody_asks(unit):
    before_s = unit.t_s
    unit.run(time.monotonic() + 100.0)
    assert unit.t_s - before_s == pytest.approx(100.0, abs=5.0)
