"""The emulated unit as programs of others see it: pyvisa-py and python-usbtmc, each over its own USBTMC."""

import time

import pytest

pyvisa = pytest.importorskip("pyvisa")
usbtmc = pytest.importorskip("usbtmc")

CELL = {"particles": 6, "capacity_mah": 0.5, "initial_soc": 0.4}
RESOURCE = f"USB0::{0x05E6}::{0x2450}::04400001::0::INSTR"
IDENTITY = "KEITHLEY INSTRUMENTS,MODEL 2450,04400001,1.7.12b"


@pytest.fixture
def unit(bus):
    bus.plug("smu", "smu", **CELL)
    return bus


@pytest.fixture
def visa(unit):
    manager = pyvisa.ResourceManager("@py")
    session = manager.open_resource(RESOURCE, timeout=500, read_termination="\n", write_termination="\n")
    yield session
    session.close()
    manager.close()


@pytest.fixture
def tmc(unit):
    one = usbtmc.Instrument(0x05E6, 0x2450)
    one.timeout = 0.5
    yield one
    one.close()


def test_visa_queries_and_reads_errors(visa):
    assert visa.query("*IDN?") == IDENTITY
    visa.write("NONSENSE 1")
    assert visa.query("SYST:ERR?") == '-113,"Undefined header"'
    assert visa.query("SYST:ERR?") == '0,"No error"'


def test_visa_measures_the_cell(visa):
    for command in ("OUTP:SMOD HIMP", "SOUR:FUNC CURR", "SOUR:CURR 0", 'SENS:FUNC "VOLT"', "OUTP ON"):
        visa.write(command)
    assert 3.0 < float(visa.query('READ? "defbuffer1", READ')) < 4.4
    visa.write("OUTP OFF")
    assert visa.query("OUTP?") == "0"


def test_visa_recovers_from_a_time_out(visa, unit):
    unit.inject("smu", "mute")
    with pytest.raises(pyvisa.VisaIOError, match="VI_ERROR_TMO"):
        visa.query("*IDN?")
    assert visa.query("*IDN?") == IDENTITY
    assert unit.state("smu")["counts"]["request 3"] >= 1  # INITIATE_ABORT_BULK_IN


def test_visa_reads_a_long_answer_in_parts(visa):
    for command in ("OUTP:SMOD HIMP", "SOUR:FUNC CURR", "SOUR:CURR 0", 'SENS:FUNC "VOLT"', "SENS:VOLT:NPLC 0.01"):
        visa.write(command)
    visa.write('TRAC:CLE "defbuffer1"')
    for command in (
        "TRIG:BLOC:SOUR:STAT 1, ON", 'TRIG:BLOC:MEAS 2, "defbuffer1"', "TRIG:BLOC:BRAN:COUN 3, 300, 2", "INIT",
    ):  # fmt: skip
        visa.write(command)
    time.sleep(1.5)
    assert visa.query('TRAC:ACT? "defbuffer1"') == "300"
    told = visa.query('TRAC:DATA? 1, 300, "defbuffer1", SOUR, READ, REL').split(",")
    assert len(told) == 900 and float(told[-1]) > 0.5


def test_usbtmc_queries(tmc):
    assert tmc.ask("*IDN?") == IDENTITY
    tmc.write("SOUR:VOLT 1e9")
    assert tmc.ask("SYST:ERR?").startswith("-222")


def test_usbtmc_recovers_from_a_time_out(tmc, unit):
    unit.inject("smu", "mute")
    with pytest.raises(Exception, match="timed out"):
        tmc.ask("*IDN?")
    assert tmc.ask("*IDN?") == IDENTITY


def test_usbtmc_clears_what_was_half_said(tmc, unit):
    unit.inject("smu", "mute")
    tmc.write("*IDN?")
    tmc.clear()
    assert tmc.ask("*IDN?") == IDENTITY
    assert unit.state("smu")["counts"]["request 5"] >= 1  # INITIATE_CLEAR
