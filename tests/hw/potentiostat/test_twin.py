import threading
import time
from itertools import pairwise

import pytest

import hw.potentiostat
from hw.drivers import build_driver
from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.contract import CellMode, DeviceLimits, HostLoss
from hw.twin.world import WorldReader
from tests.hw.potentiostat.contract_tests import PotentiostatContract

SMALL = {"particles": 6, "height_px": 120, "width_px": 160}


def twin(**options):
    return build_driver(hw.potentiostat.DRIVERS, "twin", SMALL | options)


@pytest.fixture
def opened():
    """Opens twins with the options given and closes them all."""
    ours = []

    def make(**options):
        ours.append(twin(**options))
        ours[-1].open()
        return ours[-1]

    yield make
    for one in ours:
        one.close()


class TestContract(PotentiostatContract):
    @pytest.fixture
    def potentiostat(self):
        one = twin(speed=5.0)
        yield one
        one.close()


def test_it_says_what_it_is():
    one = twin(speed=60.0, capacity_mah=0.7, host_loss_after_s=3.0)
    info = one.open()
    one.close()
    assert info.capacity_mah == 0.7 and info.clock_rate == 60.0
    assert info.host_loss is HostLoss.CELL_OFF and info.host_loss_after_s == 3.0
    assert info.sample_rate_hz == pytest.approx(50 / 60)  # no more than 50 in a host second


def test_samples_keep_the_devices_rate_and_clock(opened):
    one = opened(speed=20.0, sample_rate_hz=2.0)
    time.sleep(0.2)
    one.read(0.0)
    time.sleep(0.25)
    samples = one.read(0.1)
    assert len(samples) == pytest.approx(0.25 * 40, abs=3)
    for a, b in pairwise(samples):
        assert b.device_t_s - a.device_t_s == pytest.approx(0.5)
        assert b.host_t_s - a.host_t_s == pytest.approx(0.025, abs=1e-6)


def test_charging_raises_voltage_and_state_of_charge(opened):
    one = opened(speed=600.0, voltage_noise_v=0.0)
    rest_v = one.read(0.5)[-1].voltage_v
    one.set_current(0.5)
    time.sleep(0.3)
    last = one.read(0.5)[-1]
    assert last.voltage_v > rest_v + 0.05 and last.current_ma == pytest.approx(0.5, abs=1e-3)
    assert 3.0 < last.voltage_v < 4.4


@pytest.mark.parametrize("limits", [DeviceLimits(2.5, 3.7, 5.0), DeviceLimits(2.5, 4.5, 0.1)])
def test_the_device_enforces_its_limits(opened, limits):
    one = opened(speed=100.0)
    assert one.set_limits(limits)
    one.set_current(0.5)
    deadline = time.monotonic() + 2
    while one.mode() is not CellMode.OFF and time.monotonic() < deadline:
        time.sleep(0.01)
    assert one.mode() is CellMode.OFF
    one.read(0.0)
    assert one.read(0.5)[-1].current_ma == 0


def test_a_hold_bounds_its_current(opened):
    one = opened(speed=20.0)
    one.set_voltage(4.2, 0.3)
    one.read(0.0)
    time.sleep(0.15)
    assert one.read(0.5)[-1].current_ma == pytest.approx(0.3, abs=1e-3)


def test_a_silent_host_loses_the_cell(opened):
    one = opened(host_loss_after_s=0.3)
    one.set_current(0.2)
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        one.keep_alive()
        time.sleep(0.05)
    assert one.mode() is CellMode.GALVANOSTATIC
    time.sleep(0.5)
    assert one.mode() is CellMode.OFF


def test_reading_alone_is_no_sign_of_life(opened):
    one = opened(host_loss_after_s=0.2)
    one.set_current(0.2)
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        one.read(0.05)
    assert one.mode() is CellMode.OFF


def test_a_cell_may_be_found_on(opened):
    one = opened(found_current_ma=0.3)
    assert one.mode() is CellMode.GALVANOSTATIC
    assert one.read(0.5)[-1].mode is CellMode.GALVANOSTATIC


def test_closing_ends_the_physics_and_the_world(opened, tmp_path):
    world = tmp_path / "world"
    one = opened(world=str(world))
    reader = WorldReader(world)
    one.close()
    assert "twin-electrode" not in [thread.name for thread in threading.enumerate()]
    assert not world.exists() and reader.read().closed and reader.read().mode == 0
    reader.close()
    for call in (lambda: one.set_current(0.1), one.cell_off, lambda: one.read(0.1)):
        with pytest.raises(PotentiostatError) as caught:
            call()
        assert caught.value.reason is CellReason.UNPLUGGED


def test_close_ends_a_waiting_read(opened):
    one = opened(sample_rate_hz=0.01)
    one.read(1.0)
    waiting = threading.Thread(target=one.read, args=(20.0,))
    waiting.start()
    time.sleep(0.05)
    one.close()
    waiting.join(2.0)
    assert not waiting.is_alive()


def test_the_world_shows_the_cell_as_it_is(opened, tmp_path):
    one = opened(world=str(tmp_path / "deep" / "world"), speed=60.0)
    one.set_current(0.4)
    reader = WorldReader(tmp_path / "deep" / "world")
    time.sleep(0.1)
    state = reader.read()
    assert abs(time.monotonic() - state.host_t_s) < 0.5
    assert state.mode == 1 and state.current_ma == pytest.approx(0.4)
    assert (reader.sample.particles, len(state.particles.c)) == (6, 6)
    reader.close()


def test_a_world_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    one = twin(world=str(tmp_path / "file" / "world"))
    with pytest.raises(PotentiostatError, match="world"):
        one.open()
    one.close()


def test_particles_that_do_not_fit_are_a_sentence():
    with pytest.raises(PotentiostatError, match="do not fit"):
        twin(particles=500).open()


def test_opening_twice_is_refused(opened):
    with pytest.raises(PotentiostatError):
        opened().open()


def test_a_full_queue_counts_what_it_lost(opened, monkeypatch):
    monkeypatch.setattr("hw.potentiostat.twin.QUEUE_SAMPLES", 3)
    one = opened(speed=100.0, sample_rate_hz=100.0)
    time.sleep(0.3)
    assert len(one.read(0.0)) == 3 and one.samples_lost > 3
