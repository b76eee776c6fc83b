"""What every camera driver must do. A driver's test class inherits `CameraContract`."""

import time

import numpy as np
import pytest

from hw.camera.contract import Camera, FrameStamp
from hw.errors import CameraError, CameraReason


class CameraContract:
    """The fixture `camera` gives a driver that was constructed and not opened, and closes it at the end."""

    @pytest.fixture
    def camera(self) -> Camera:
        raise NotImplementedError

    @pytest.fixture
    def opened(self, camera):
        info = camera.open()
        yield camera, info, np.zeros(info.pixel_format.payload_bytes(info.height_px, info.width_px), np.uint8)
        camera.close()

    @staticmethod
    def frames(camera, slot, count) -> list[FrameStamp]:
        camera.start()
        deadline, stamps = time.monotonic() + 5, []
        while len(stamps) < count and time.monotonic() < deadline:
            stamp = camera.next_frame(slot, 1.0)
            if stamp is not None:
                stamps.append(stamp)
        return stamps

    def test_open_describes_the_camera(self, opened):
        _, info, _ = opened
        assert info.model and info.height_px > 0 and info.width_px > 0 and info.frame_rate_hz > 0
        for value in (info.exposure_us, info.gain_e_per_dn, info.pixel_size_nm, info.clock_rate):
            assert value is None or value > 0
        for value in (info.read_noise_e, info.dark_dn):
            assert value is None or value >= 0

    def test_maps_have_the_shape_of_a_frame(self, opened):
        _, info, _ = opened
        for one in (info.dark, info.flat):
            assert one is None or one.shape == (info.height_px, info.width_px)

    def test_frames_fill_the_slot_with_a_picture(self, opened):
        camera, _, slot = opened
        self.frames(camera, slot, 1)
        assert len(np.unique(slot)) > 10

    def test_stamps_rise_and_block_ids_start_anew(self, opened):
        camera, _, slot = opened
        for _ in range(2):
            stamps = self.frames(camera, slot, 4)
            camera.stop()
            assert stamps[0].block_id < 4 and len(stamps) == 4
            assert (np.diff([s.block_id for s in stamps]) >= 1).all()
            assert (np.diff([s.device_t_s for s in stamps]) > 0).all()
            assert (np.diff([s.host_t_s for s in stamps]) >= 0).all()
            assert abs(stamps[-1].host_t_s - time.monotonic()) < 5

    def test_its_clock_runs_as_it_says(self, opened):
        camera, info, slot = opened
        stamps = self.frames(camera, slot, 4)
        camera.stop()
        if info.clock_rate is not None:
            device_s, host_s = (stamps[-1].device_t_s - stamps[0].device_t_s, stamps[-1].host_t_s - stamps[0].host_t_s)
            assert abs(device_s / info.clock_rate - host_s) < 5

    def test_a_wait_ends_in_time(self, opened):
        camera, _, slot = opened
        camera.start()
        began = time.monotonic()
        camera.next_frame(slot, 0.0)
        assert time.monotonic() - began < 1.0

    def test_lent_slots_come_back_filled_in_order_of_time(self, opened):
        camera, _, slot = opened
        slots = {number: np.zeros_like(slot) for number in range(camera.queue_frames + 1)}
        free, stamps = list(slots), []
        camera.start()
        deadline = time.monotonic() + 5
        while len(stamps) < 6 and time.monotonic() < deadline:
            while free and len(slots) - len(free) < camera.queue_frames:
                camera.lend(free[0], slots[free.pop(0)])
            taken = camera.take(1.0)
            if taken is not None:
                number, stamp = taken
                assert number not in free and len(np.unique(slots[number])) > 10
                slots[number][:] = 0
                free.append(number)
                stamps.append(stamp)
        camera.stop()
        assert (np.diff([s.block_id for s in stamps]) >= 1).all() and len(stamps) == 6
        assert sorted(camera.reclaim()) == sorted(set(slots) - set(free))
        assert camera.reclaim() == []

    def test_what_was_lent_is_given_back_by_close_too(self, opened):
        camera, _, slot = opened
        camera.lend(5, slot)
        camera.start()
        camera.close()
        assert camera.reclaim() == [5]
        assert camera.reclaim() == []

    def test_stop_and_close_may_be_repeated(self, opened):
        camera, _, slot = opened
        self.frames(camera, slot, 1)
        for _ in range(2):
            camera.stop()
        for _ in range(2):
            camera.close()

    def test_close_without_open_is_harmless(self, camera):
        camera.close()

    def test_it_opens_again_after_close(self, camera):
        first = camera.open()
        camera.close()
        second = camera.open()
        slot = np.zeros(second.pixel_format.payload_bytes(second.height_px, second.width_px), np.uint8)
        assert (first.height_px, first.width_px) == (second.height_px, second.width_px)
        assert self.frames(camera, slot, 1)
        camera.close()

    @pytest.mark.parametrize("settings", [{"no_such_setting": 1}, {"exposure_us": -1.0}, {"frame_rate_hz": 0}])
    def test_a_setting_it_cannot_take_is_refused(self, opened, settings):
        camera, _, _ = opened
        with pytest.raises(CameraError) as caught:
            camera.configure(settings)
        assert caught.value.reason is CameraReason.BAD_SETTING
        assert next(iter(settings)) in caught.value.detail
