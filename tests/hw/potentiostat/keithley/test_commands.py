import pytest

from hw.potentiostat.keithley import commands
from hw.twin.smu.instrument import Instrument, SmuOptions


def blocks(period_s: float, host_loss_after_s: float) -> tuple[float, int]:
    """The pause and the count of readings."""
    model = commands.readings(period_s, host_loss_after_s)
    return float(model[2].split(",")[1]), int(model[3].split(",")[1])


@pytest.mark.parametrize("rate_hz", [0.5, 5.0, 20.0])
@pytest.mark.parametrize("host_loss_after_s", [5.0, 30.0, 3600.0])
def test_the_output_opens_after_the_time_of_host_loss_and_not_later(rate_hz, host_loss_after_s):
    pause_s, count = blocks(1 / rate_hz, host_loss_after_s)
    loop_s = pause_s + commands.READING_S
    assert loop_s == pytest.approx(1 / rate_hz, rel=0.01)
    assert host_loss_after_s - max(loop_s, 0.001 * host_loss_after_s) <= count * loop_s <= host_loss_after_s


def test_nothing_but_outp_on_switches_on():
    told = [
        *commands.prepare(True),
        *commands.voltmeter(5.0, True),
        *commands.source(3.7, 1.0, 4.4, True),
        *commands.readings(0.2, 30),
    ]
    told.append(commands.redrive(4.4, 1.0, 2.0))
    assert not [message for message in told if "OUTP ON" in message or ("STAT" in message and "ON" in message)]


@pytest.mark.parametrize(
    ("max_voltage_v", "guard"), [(1.8, "PROT2"), (4.4, "PROT5"), (4.8, "PROT10"), (20.0, "PROT40"), (39.0, "NONE")]
)
def test_the_protection_is_the_next_above_the_limit(max_voltage_v, guard):
    assert f"SOUR:VOLT:PROT {guard}" in commands.source(1.0, 1.0, max_voltage_v, True)


def test_the_smaller_of_two_limits_holds_while_the_voltage_changes():
    less, more = commands.redrive(2.5, 1.0, 5.0), commands.redrive(2.5, 5.0, 1.0)
    assert less.index("ILIM") < less.index("SOUR:VOLT 2.5")
    assert more.index("ILIM") > more.index("SOUR:VOLT 2.5")


@pytest.mark.parametrize("four_wire", [True, False])
def test_an_instrument_takes_every_message(four_wire):
    unit = Instrument(SmuOptions(particles=2, initial_soc=0.4))
    for message in (
        *commands.prepare(four_wire), *commands.voltmeter(5.0, four_wire), "OUTP ON", ":ABOR;:OUTP OFF",
        *commands.source(3.7, 1.0, 4.4, four_wire), *commands.readings(0.2, 30), "OUTP ON", ":SOUR:VOLT 4.4;:INIT",
        commands.redrive(2.5, 5.0, 1.0), commands.joined(commands.prepare(four_wire)),
        commands.joined(commands.source(3.7, 1.0, 4.4, four_wire) + commands.readings(0.2, 30)), "OUTP ON", "INIT",
    ):  # fmt: skip
        unit.execute(message)
        assert unit.execute("SYST:ERR?") == '0,"No error"', message
    unit.close()
