import time

import numpy as np
import pytest

import hw.camera
import hw.potentiostat
from hw.drivers import build_driver
from hw.errors import CellReason, PotentiostatError, RecordingReason
from hw.potentiostat.contract import CellMode, DeviceLimits, HostLoss
from tests.hw.potentiostat.contract_tests import PotentiostatContract
from tests.hw.recording.builders import cell_rows, write_h5


@pytest.fixture
def path(tmp_path):
    return write_h5(tmp_path / "r.h5", attrs={"capacity_mah": 0.66})


def potentiostat(path, **options):
    return build_driver(hw.potentiostat.DRIVERS, "replay", {"path": str(path), "speed": 0, **options})


def opened(path, **options):
    one = potentiostat(path, **options)
    one.open()
    return one


def test_samples_come_as_they_were_recorded(path):
    samples = opened(path).read(1.0)
    rows = cell_rows()
    np.testing.assert_allclose([s.voltage_v for s in samples], rows[0])
    np.testing.assert_allclose([s.current_ma for s in samples], rows[1])
    np.testing.assert_allclose([s.device_t_s for s in samples], rows[3])
    assert {s.mode for s in samples} == {CellMode.GALVANOSTATIC}


def test_it_says_what_it_is(path):
    info = potentiostat(path, speed=3.0).open()
    assert (info.max_current_ma, info.min_voltage_v, info.max_voltage_v) == (1.5, 3.0, 4.0)
    assert info.sample_rate_hz == pytest.approx(20) and info.capacity_mah == 0.66
    assert info.host_loss is HostLoss.NOT_APPLICABLE and info.host_loss_after_s is None
    assert info.clock_rate == 3.0


def test_the_clock_is_the_cameras(path):
    camera = build_driver(hw.camera.DRIVERS, "replay", {"path": str(path)})
    try:
        assert camera.open().clock_id == potentiostat(path).open().clock_id != ""
    finally:
        camera.close()


def test_the_offset_dates_the_samples(path):
    samples = opened(path, overrides={"potentiostat_offset_s": -0.1}).read(1.0)
    assert samples[0].device_t_s == pytest.approx(-0.1)


def test_it_drives_nothing(path):
    one = opened(path)
    for act in (lambda: one.set_current(1.0), lambda: one.set_voltage(4.0, 1.0)):
        with pytest.raises(PotentiostatError) as caught:
            act()
        assert caught.value.reason is CellReason.READ_ONLY and "r.h5" in caught.value.detail
    assert one.set_limits(DeviceLimits(2.5, 4.5, 1.0)) is False
    assert one.cell_off() is None and one.keep_alive() is None
    assert one.mode() is CellMode.OFF


def test_a_rest_shows_no_current(tmp_path):
    rows = cell_rows()
    rows[1] = 0
    assert {s.mode for s in opened(write_h5(tmp_path / "r.h5", potentiostat_value=rows)).read(1.0)} == {CellMode.OFF}


def test_the_end_is_said_again_and_again(path):
    one = opened(path)
    one.read(1.0)
    for _ in range(2):
        with pytest.raises(PotentiostatError) as caught:
            one.read(0.1)
        assert caught.value.reason is CellReason.ENDED


def test_a_loop_repeats_what_lies_within_the_frames(path):
    one = opened(path, loop=True)  # 0.2 s of frames, a sample each 0.05 s
    t_s = [sample.device_t_s for _ in range(5) for sample in one.read(1.0)]
    np.testing.assert_allclose(t_s, 0.05 * np.arange(20), atol=1e-9)


def test_samples_keep_their_pace(path):
    one = opened(path, speed=1.0)
    first = one.read(1.0)
    assert [s.device_t_s for s in first] == [0.0]
    started = time.monotonic()
    later = one.read(1.0)
    assert time.monotonic() - started >= 0.04 and later[0].device_t_s == pytest.approx(0.05)
    time.sleep(0.22)
    assert len(one.read(1.0)) >= 4


def test_nothing_in_time_is_an_empty_answer(path):
    one = opened(path, speed=0.001)
    one.read(0.1)
    started = time.monotonic()
    assert one.read(0.03) == []
    assert 0.02 < time.monotonic() - started < 1.0


def test_what_lies_before_the_first_frame_comes_at_once(path):
    samples = opened(path, speed=0.001, overrides={"potentiostat_offset_s": -0.525}).read(0.1)
    assert len(samples) == 11 and samples[-1].device_t_s < 0


def test_long_records_come_in_portions(tmp_path):
    one = opened(write_h5(tmp_path / "r.h5", potentiostat_value=cell_rows(2500, 0.001)))
    assert [len(one.read(1.0)) for _ in range(3)] == [1000, 1000, 500]


def test_opening_again_begins_anew(path):
    one = opened(path)
    one.read(1.0)
    one.close()
    one.close()
    with pytest.raises(PotentiostatError, match="not open"):
        one.read(0.1)
    one.open()
    assert one.read(1.0)[0].device_t_s == 0


def test_a_recording_without_a_cell(tmp_path):
    with pytest.raises(PotentiostatError) as caught:
        potentiostat(write_h5(tmp_path / "r.h5", potentiostat_value=None)).open()
    assert caught.value.reason is CellReason.NOT_FOUND and "r.h5" in caught.value.detail


def test_a_recording_that_cannot_be_read(tmp_path):
    with pytest.raises(PotentiostatError) as caught:
        potentiostat(tmp_path / "gone.h5").open()
    assert caught.value.reason is RecordingReason.UNREADABLE


class TestReplayContract(PotentiostatContract):
    """A recording is a potentiostat that drives nothing."""

    drives = False

    @pytest.fixture
    def potentiostat(self, path):
        one = build_driver(hw.potentiostat.DRIVERS, "replay", {"path": str(path)})
        yield one
        one.close()
