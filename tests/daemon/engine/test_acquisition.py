import time
from collections import Counter

import numpy as np
import pytest

from daemon.engine import acquisition as module
from hw.camera.contract import Camera, CameraIdentity, PixelFormat
from hw.drivers import DriverReason
from hw.errors import CameraError, CameraReason
from tests.daemon.engine.scripted import HEIGHT, WIDTH, Life, Running, Script, ScriptedCamera, wait_until

FAULTS = [reason for reason in CameraReason if reason is not CameraReason.ENDED]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.08)


@pytest.fixture
def play(monkeypatch):
    def build(*lives):
        script = Script(list(lives))
        monkeypatch.setattr(module, "build_driver", script.camera)
        return script

    return build


def test_frames_reach_the_ring_in_order_with_their_bytes(play):
    play(Life(range(10)))
    with Running() as running:
        assert running.take(10) == [(n, n, 1) for n in range(10)]
        assert running.acquisition.captured == 10
        assert running.acquisition.last_host_t_s == pytest.approx(time.monotonic(), abs=5)
    assert running.kinds() == ["open"]


@pytest.mark.parametrize("reason", FAULTS)
def test_every_fault_while_streaming_is_reported_and_survived(play, reason):
    script = play(Life([0, 1, CameraError(reason, "it happened")]), Life(range(3)))
    with Running() as running:
        assert [block for block, _, _ in running.take(5)] == [0, 1, 0, 1, 2]
        assert running.acquisition.stream == 2
    assert running.kinds() == ["open", "lost", "open"]
    assert running.reports[1][1] == {"reason": reason.code, "detail": "it happened", "remedy": reason.remedy}
    assert script.closes == 2


@pytest.mark.parametrize("where", ["open_error", "start_error"])
@pytest.mark.parametrize("reason", FAULTS)
def test_every_fault_while_opening_is_reported_and_survived(play, reason, where):
    script = play(Life(**{where: CameraError(reason, "no")}), Life(range(2)))
    with Running() as running:
        assert len(running.take(2)) == 2
    assert running.reasons() == [reason.code]
    assert script.closes == 2


def test_it_asks_less_and_less_often_and_begins_anew_after_frames(play, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.6)
    gone = Life(open_error=CameraError(CameraReason.NOT_FOUND, "gone"))
    script = play(*[gone] * 5, Life([0, CameraError(CameraReason.UNPLUGGED, "out")]), Life())
    with Running():
        wait_until(lambda: len(script.opened_s) >= 7)
    pauses = np.diff(script.opened_s)
    for pause, least in zip(pauses, [0.04, 0.08, 0.16, 0.32, 0.6, 0.02], strict=False):
        assert pause >= 0.95 * least
    assert pauses[5] < 0.6  # frames had come


def test_an_unknown_driver_is_reported_not_fatal():
    with Running() as running:
        wait_until(running.reasons)
        assert running.acquisition.is_alive()
    assert running.reasons()[0] == DriverReason.UNKNOWN.code
    assert "scripted" in running.reports[0][1]["detail"]


def test_a_silent_camera_is_stalled(play):
    play(Life([0]), Life([0]))
    with Running(deadline_s=0.05) as running:
        running.take(2)
    assert running.reasons()[0] == CameraReason.STALLED.code
    assert "no frame for" in running.reports[1][1]["detail"]


def test_frames_in_time_are_not_silence(play):
    play(Life(range(20), interval_s=0.008))
    with Running(deadline_s=0.03) as running:
        running.take(20)
        assert running.reasons() == []


def test_a_full_ring_drops_the_newest_and_counts_them(play):
    play(Life(range(20)))
    with Running(ring_frames=4) as running:
        wait_until(lambda: running.acquisition.captured == 20)
        assert running.acquisition.dropped == {"ring.full": 16}
        assert [block for block, _, _ in running.take(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("queue_frames", [2, 3, 8])
def test_a_camera_with_a_queue_has_that_many_slots_or_all_there_are(play, queue_frames):
    play(Life(range(30), queue_frames=queue_frames))
    with Running(ring_frames=4) as running:
        wait_until(lambda: running.acquisition.captured == 30)
        assert running.acquisition.dropped == {"ring.full": 26}
        assert [block for block, _, _ in running.take(4)] == [0, 1, 2, 3]


def test_slots_lent_to_a_queue_come_back_after_a_fault_and_a_rewind(play):
    queued = {"queue_frames": 3, "interval_s": 0.01}
    fault = CameraError(CameraReason.UNPLUGGED, "out")
    play(Life([0, 1, fault], **queued), Life([0, fault], **queued), Life(range(5), **queued))
    with Running(ring_frames=4) as running:
        assert len(running.take(8)) == 8
        for _ in range(3):
            running.acquisition.rewind(5.0)
            assert [block for block, _, _ in running.take(5)] == list(range(5))
        assert not running.acquisition.dropped
        ring = running.acquisition.ring
    assert sorted(ring.lease() for _ in range(4)) == [0, 1, 2, 3]


def test_a_slot_the_driver_cannot_let_go_of_is_not_used_again(play, monkeypatch):
    queued = {"queue_frames": 3, "interval_s": 0.01}
    play(Life([0, CameraError(CameraReason.UNPLUGGED, "out")], **queued), Life(range(9), **queued))
    monkeypatch.setattr(ScriptedCamera, "reclaim", lambda self: Camera.reclaim(self)[1:])
    with Running(ring_frames=4) as running:
        assert len(running.take(10)) == 10
    ring = running.acquisition.ring
    assert [ring.lease() is None for _ in range(3)] == [False, False, True]  # each life kept one


def test_gaps_of_the_block_ids_are_lost_frames(play):
    play(Life([0, 1, 5, 6, 9]))
    with Running(ring_frames=8) as running:
        running.take(5)
        assert running.acquisition.captured == 10
        assert running.acquisition.dropped == {"camera.lost": 5}


def test_block_ids_of_a_new_stream_are_no_gap(play):
    play(Life([40, 41, CameraError(CameraReason.UNPLUGGED, "out")]), Life([7, 8]))
    with Running() as running:
        running.take(4)
        assert running.acquisition.captured == 4
        assert not running.acquisition.dropped


def test_a_fault_gives_its_slot_back(play):
    play(Life([CameraError(CameraReason.STALLED, "x")]), Life([CameraError(CameraReason.STALLED, "x")]), Life([3]))
    with Running(ring_frames=1) as running:
        assert running.take(1) == [(3, 3, 1 + 2)]


def test_a_camera_of_another_size_gets_a_ring_of_its_own(play):
    play(Life([1, CameraError(CameraReason.UNPLUGGED, "swapped")]), Life([2], shape=(16, 20)))
    with Running() as running:
        wait_until(lambda: running.acquisition.stream == 2)
        wait_until(lambda: running.acquisition.ring.depth)
        assert running.acquisition.ring.slot(0).size == 320
        assert running.acquisition.info.height_px == 16


SAME_BYTES = {"shape": (WIDTH, HEIGHT)}
OTHERS = [
    (SAME_BYTES, "height_px 10, was 8, width_px 8, was 10"),
    ({"shape": (16, 20)}, "height_px 16, was 8, width_px 20, was 10"),
    ({"pixel_format": PixelFormat.MONO16}, "pixel_format Mono16, was Mono8"),
    ({"serial": "2"}, "serial 2, was 1"),
]


@pytest.mark.parametrize(("other", "told"), OTHERS)
def test_a_run_waits_for_its_own_camera_and_is_given_no_frame_of_another(play, other, told):
    play(Life([0, 1, CameraError(CameraReason.UNPLUGGED, "out")]), Life(range(50, 60), **other), Life([7, 8]))
    one = Running()
    one.acquisition.expect(CameraIdentity("1", HEIGHT, WIDTH, PixelFormat.MONO8))
    with one as running:
        assert [block for block, _, _ in running.take(4)] == [0, 1, 7, 8]
        assert running.acquisition.captured == 4 and not running.acquisition.dropped
        assert running.acquisition.info.identity == CameraIdentity("1", HEIGHT, WIDTH, PixelFormat.MONO8)
    assert running.reasons() == ["camera.unplugged", "camera.changed"]
    assert running.reports[2][1]["detail"].endswith(told) and running.kinds()[-1] == "open"


def test_a_run_that_expects_another_camera_than_the_open_one_is_refused(play):
    play(Life(range(2)))
    with Running() as running:
        running.take(2)
        with pytest.raises(CameraError, match="pixel_format Mono8, was Mono12p") as caught:
            running.acquisition.expect(CameraIdentity("1", HEIGHT, WIDTH, PixelFormat.MONO12P))
        assert caught.value.reason is CameraReason.CHANGED


@pytest.mark.parametrize(("other", "told"), OTHERS)
def test_frames_that_wait_when_another_camera_comes_are_dropped_and_counted(play, other, told):
    play(Life([1, 2, 3, CameraError(CameraReason.UNPLUGGED, "swapped")]), Life([4, 5], **other))
    with Running() as running:
        wait_until(lambda: running.acquisition.captured == 5)
        wait_until(lambda: running.acquisition.ring.depth == 2)
        assert running.acquisition.dropped == {"camera.changed": 3}
        assert [block for block, _, _ in running.take(2)] == [4, 5]


def test_frames_that_wait_when_the_same_camera_comes_back_are_kept(play):
    play(Life([1, 2, 3, CameraError(CameraReason.UNPLUGGED, "out")]), Life([4, 5]))
    with Running() as running:
        wait_until(lambda: running.acquisition.captured == 5)
        assert [block for block, _, _ in running.take(5)] == [1, 2, 3, 4, 5]
        assert not running.acquisition.dropped


def test_rewind_starts_the_frames_anew_under_a_new_number(play):
    script = play(Life(range(3)))
    with Running(ring_frames=8) as running:
        assert [stream for _, _, stream in running.take(3)] == [1, 1, 1]
        assert running.acquisition.rewind(5.0) == 2
        assert running.take(3) == [(0, 0, 2), (1, 1, 2), (2, 2, 2)]
        assert not running.acquisition.dropped
    assert script.starts == 2
    assert len(script.opened_s) == 1


def test_the_end_of_a_recording_waits_to_be_rewound(play):
    script = play(Life(range(2), ends=True))
    with Running() as running:
        running.take(2)
        wait_until(lambda: "ended" in running.kinds())
        time.sleep(0.1)
        assert len(script.opened_s) == 1  # it does not play itself again
        assert running.acquisition.rewind(5.0) == 2
        assert running.take(2) == [(0, 0, 2), (1, 1, 2)]
    assert running.kinds()[:3] == ["open", "ended", "open"]
    assert running.reasons() == []


def test_a_camera_that_is_not_there_cannot_be_rewound(play):
    play(Life(open_error=CameraError(CameraReason.NOT_FOUND, "gone")))
    with Running() as running:
        with pytest.raises(CameraError) as caught:
            running.acquisition.rewind(0.05)
        assert caught.value.reason is CameraReason.STALLED
        assert running.acquisition.is_alive()


def test_settings_are_applied_by_the_cameras_own_thread(play):
    script = play(Life())
    with Running() as running:
        wait_until(lambda: script.starts)
        info = running.acquisition.configure({"exposure_us": 5.0}, 5.0)
        assert info is running.acquisition.info and (info.exposure_us, info.frame_rate_hz) == (5.0, 100.0)
    assert script.settings == [{"exposure_us": 5.0}]


def test_settings_hold_for_every_camera_that_is_opened_later(play):
    pulled = CameraError(CameraReason.UNPLUGGED, "out")
    script = play(Life(range(2), again=[pulled]), Life([2, pulled]), Life([3]))
    with Running(settings={"exposure_us": 9.0, "frame_rate_hz": 30.0}) as running:
        running.take(2)
        running.acquisition.configure({"exposure_us": 5.0}, 5.0)
        running.acquisition.rewind(5.0)
        running.take(2)
        assert running.acquisition.info.exposure_us == 5.0 and running.acquisition.info.frame_rate_hz == 30.0
    both = {"exposure_us": 5.0, "frame_rate_hz": 30.0}
    assert script.settings == [{"exposure_us": 9.0, "frame_rate_hz": 30.0}, {"exposure_us": 5.0}, both, both]


def test_settings_that_a_later_camera_refuses_are_noted_and_given_up(play):
    script = play(Life([0, CameraError(CameraReason.UNPLUGGED, "out")]), Life([1]))
    script.refuse = CameraError(CameraReason.BAD_SETTING, "exposure_us = 5 is outside of 10 to 100")
    with Running(settings={"exposure_us": 5.0}) as running:
        running.take(1)
        assert running.acquisition.info.notes == (
            "settings made while it ran hold no more: exposure_us = 5 is outside of 10 to 100",
        )
        running.take(1)
        assert running.acquisition.info.notes == ()  # it was told once
    assert running.kinds() == ["open", "lost", "open"]


def test_a_camera_that_is_lost_while_it_is_set_is_lost(play, monkeypatch):
    script = play(Life([0]), Life([1]))
    script.refuse = CameraError(CameraReason.UNPLUGGED, "out")
    with Running(settings={"exposure_us": 5.0}) as running:
        wait_until(running.reasons)
        script.refuse = None
        running.take(1)
    assert set(running.reasons()) == {"camera.unplugged"} and script.settings == [{"exposure_us": 5.0}]


def test_frames_further_apart_than_the_deadline_are_refused(play):
    script = play(Life())
    with Running(deadline_s=5.0) as running:
        wait_until(lambda: script.starts)
        with pytest.raises(CameraError, match="further apart than 5 s") as caught:
            running.acquisition.configure({"frame_rate_hz": 0.19}, 5.0)
        assert caught.value.reason is CameraReason.BAD_SETTING
        running.acquisition.configure({"frame_rate_hz": 0.2}, 5.0)
    assert script.settings == [{"frame_rate_hz": 0.2}]


def test_a_refused_setting_is_the_askers_error_and_the_camera_goes_on(play):
    script = play(Life(range(2), interval_s=0.02))
    script.refuse = CameraError(CameraReason.BAD_SETTING, "exposure_us = 5")
    with Running() as running:
        with pytest.raises(CameraError) as caught:
            running.acquisition.configure({"exposure_us": 5.0}, 5.0)
        assert caught.value is script.refuse
        running.take(2)
    assert running.kinds() == ["open"]


def test_settings_without_a_camera_time_out_and_are_forgotten(play):
    gone = Life(open_error=CameraError(CameraReason.UNPLUGGED, "gone"))
    script = play(gone)
    with Running() as running:
        with pytest.raises(CameraError) as caught:
            running.acquisition.configure({"exposure_us": 5.0}, 0.05)
        assert caught.value.reason is CameraReason.STALLED
        script.lives.append(Life([1]))
        running.take(1)
    assert script.settings == []


def test_quitting_does_not_wait_for_the_back_off(play, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_FIRST_S", 30.0)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 30.0)
    play(Life(open_error=CameraError(CameraReason.NOT_FOUND, "gone")))
    with Running() as running:
        wait_until(running.reasons)
        began = time.monotonic()
    assert time.monotonic() - began < 1.0


def test_remedies_are_counted_over_all_lives_of_the_camera(play, monkeypatch):
    script = play(Life([0, CameraError(CameraReason.STALLED, "silent")]), Life(range(3)))
    counts = iter([Counter({"reset": 2, "resent": 9}), Counter({"reset": 1, "clear": 4})])

    def build(*arguments):
        camera = script.camera(*arguments)
        camera.counts = next(counts)
        return camera

    monkeypatch.setattr(module, "build_driver", build)
    with Running() as running:
        running.take(4)
        assert running.acquisition.remedies == {"clear": 4, "restart": 0, "reset": 3}
    assert running.acquisition.remedies == {"clear": 4, "restart": 0, "reset": 3}
