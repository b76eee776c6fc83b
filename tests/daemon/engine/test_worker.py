import time

import numpy as np
import pytest

from daemon.engine import acquisition as acquisition_module
from daemon.engine import worker as module
from daemon.engine.link import Message
from daemon.engine.measures import MaskSet, NoiseModel
from daemon.engine.pipeline import PipelineSettings
from daemon.engine.wire import batch_from, masks_message, measure_message
from daemon.engine.worker import Capture, Outbox, Worker
from daemon.errors import CameraReason, EngineError, EngineReason, MaskReason, RunReason
from daemon.photometry.compile import compile_operator
from hw.camera.contract import CameraIdentity, PixelFormat
from hw.errors import CameraError
from tests.daemon.engine.scripted import Life, Running, Script, wait_until

SHAPE = (64, 80)
REQUEST = 5


@pytest.fixture(scope="module")
def operator():
    masks = MaskSet(np.zeros(SHAPE, np.int32), np.empty(0, int), np.empty(0), np.empty(0), {}, 1.5, None)
    return compile_operator(np.full(SHAPE, 600, np.float32), masks, NoiseModel(4.0, 3.0, 0.0), 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(acquisition_module, "POLL_S", 0.01)
    monkeypatch.setattr(acquisition_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(acquisition_module, "BACKOFF_MAX_S", 0.05)
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)


class Bench:
    """A worker over a scripted camera; `sent` are the messages other than heartbeats so far."""

    def __init__(self, monkeypatch, *lives, ring_frames=64, outbox=4096):
        self.script = Script([Life(**{"shape": SHAPE, **life}) for life in lives])
        monkeypatch.setattr(acquisition_module, "build_driver", self.script.camera)
        self.running = Running(ring_frames)
        self.outbox = Outbox(outbox)
        self.worker = Worker(self.running.acquisition, self.outbox, 0.02)
        report = self.running.acquisition._report

        def tell(kind, fields):
            report(kind, fields)
            if kind == "ended":
                self.worker.recording_ended(self.running.acquisition.stream)

        self.running.acquisition._report = tell
        self.sent, self.beats = [], []

    def __enter__(self):
        self.running.__enter__()
        return self

    def __exit__(self, *_):
        self.worker.quit()
        if self.worker.ident is not None:
            self.worker.join(5.0)
        self.running.__exit__()

    def captured(self, count):
        wait_until(lambda: self.running.acquisition.captured >= count)

    def listen(self):
        while self.outbox.depth:
            message = self.outbox.get()
            (self.beats if message.kind == "heartbeat" else self.sent).append(message)
        return self.sent

    def first(self, kind):
        return wait_until(lambda: next((message for message in self.listen() if message.kind == kind), None))

    def batches(self, frames):
        """Batches of at least `frames` frames."""

        def found():
            batches = [batch_from(message) for message in self.listen() if message.kind == "batch"]
            return batches if sum(map(len, batches)) >= frames else None

        return wait_until(found)


@pytest.fixture
def bench(monkeypatch):
    return lambda *lives, **options: Bench(monkeypatch, *lives, **options)


def measure(operator, **options):
    message = measure_message(operator, PipelineSettings(8, 100.0, 0.05), **options)
    message.fields["request"] = REQUEST
    return message


def order(kind, **fields):
    return Message(kind, {"request": REQUEST, **fields})


def test_frames_without_a_run_are_idle(bench):
    with bench({"steps": range(7)}) as b:
        b.worker.start()
        wait_until(lambda: b.worker.idle == 7)
        assert b.worker.measured == 0


def test_a_run_measures_from_the_cameras_first_frame_and_nothing_older(bench, operator):
    with bench({"steps": range(12)}) as b:
        b.captured(12)  # they wait in the ring when the order comes
        b.worker.order(measure(operator))
        b.worker.start()
        batches = b.batches(12)
        assert b.first("reply").fields == {"request": REQUEST}
        np.testing.assert_array_equal(np.concatenate([batch.block_id for batch in batches]), range(12))
        np.testing.assert_array_equal(np.concatenate([batch.frame for batch in batches]), range(12))
        assert batches[0].t_s[0] == 0.0
        assert (b.worker.measured, b.worker.idle) == (12, 12)
        assert b.script.starts == 2


def test_without_a_rewind_it_goes_on_with_what_there_is(bench, operator):
    with bench({"steps": range(12)}) as b:
        b.captured(12)
        b.worker.order(measure(operator, rewind=False, first_frame=100, first_t_s=-1.0))
        b.worker.start()
        batches = b.batches(12)
        assert batches[0].frame[0] == 100
        assert batches[0].t_s[0] == pytest.approx(1.0)
        assert b.script.starts == 1


def test_the_end_of_a_run_settles_its_baseline_and_frames_are_idle_again(bench, operator):
    with bench({"steps": range(400), "interval_s": 0.005}) as b:
        b.worker.start()
        b.worker.order(measure(operator))
        wait_until(lambda: b.worker.measured >= 3)
        b.worker.order(order("finish"))
        wait_until(lambda: len([m for m in b.listen() if m.kind == "reply"]) == 2)
        measured, idle = b.worker.measured, b.worker.idle
        wait_until(lambda: b.worker.idle > idle + 3)
        assert b.worker.measured == measured
        assert sum(len(batch_from(m)) for m in b.listen() if m.kind == "batch") == measured


CAMERA = CameraIdentity("1", *SHAPE, PixelFormat.MONO8)


@pytest.mark.parametrize("other", [{"shape": SHAPE[::-1]}, {"shape": (100, 120)}, {"pixel_format": PixelFormat.MONO12}])
def test_a_run_measures_no_frame_of_another_camera_which_is_free_once_it_ended(bench, operator, other):
    gone = CameraError(CameraReason.UNPLUGGED, "out")
    with bench({"steps": range(5), "again": [*range(10), gone]}, {"steps": range(7), **other}) as b:
        b.captured(5)
        b.worker.order(measure(operator, camera=CAMERA))
        b.worker.start()
        b.batches(10)
        wait_until(lambda: "camera.changed" in b.running.reasons())
        assert b.worker.is_alive() and b.running.acquisition.captured == 15
        b.worker.order(order("finish"))
        b.captured(22)
        wait_until(lambda: b.running.acquisition.ring.depth == 0 and b.worker.idle == 12)
        assert b.worker.is_alive() and b.worker.measured == 10


@pytest.mark.parametrize("other", [{"shape": (100, 120)}, {"pixel_format": PixelFormat.MONO12}, {"serial": "2"}])
def test_frames_of_another_camera_end_a_capture_and_nothing_else(bench, operator, other):
    gone = CameraError(CameraReason.UNPLUGGED, "out")
    with bench({"steps": range(5), "again": [*range(10), gone]}, {"steps": range(7), **other}) as b:
        b.captured(5)
        b.worker.order(order("capture", frames=15))
        b.worker.start()
        refused = b.first("reply").fields
        assert (refused["request"], refused["code"]) == (REQUEST, "camera.changed")
        left = b.running.acquisition.dropped  # what waited when the other camera came
        wait_until(lambda: b.worker.idle + left["camera.changed"] == 22)
        b.worker.order(Message("capture", {"request": 6, "frames": 7}))
        assert reply_to(b, 6).arrays["mean_dn"].shape == other.get("shape", SHAPE)


@pytest.mark.parametrize("rewind", [True, False])
def test_an_order_to_measure_another_camera_than_the_open_one_is_refused(bench, operator, rewind):
    with bench({"steps": range(7), "pixel_format": PixelFormat.MONO16}) as b:
        b.captured(7)
        b.worker.order(measure(operator, camera=CAMERA, rewind=rewind))
        b.worker.start()
        refused = b.first("reply").fields
        assert (refused["request"], refused["code"]) == (REQUEST, "camera.changed")
        assert refused["detail"].endswith("pixel_format Mono16, was Mono8") and refused["remedy"]
        wait_until(lambda: b.worker.idle == 7)
        assert b.worker.measured == 0


def test_finishing_nothing_is_answered(bench):
    with bench({}) as b:
        b.worker.start()
        b.worker.order(order("finish"))
        assert b.first("reply").fields == {"request": REQUEST}


def test_every_captured_frame_is_accounted_for(bench, operator):
    life = {"steps": range(30), "again": [*range(30), *range(35, 60)], "interval_s": 0.001}
    with bench(life, ring_frames=4) as b:
        b.captured(20)  # the ring is full by now
        b.worker.order(measure(operator))
        b.worker.start()
        wait_until(lambda: b.running.acquisition.ring.depth == 0 and b.worker.measured >= 4)
        time.sleep(0.15)
        beat = b.worker.counters()
    assert beat["captured"] >= 20 and beat["dropped"]["ring.full"] > 0 and beat["dropped"]["camera.lost"] == 5
    accounted = beat["measured"] + beat["idle"] + sum(beat["dropped"].values()) + beat["ring_depth"]
    assert beat["captured"] == accounted
    assert beat["ring_bound"] == 4


def test_heartbeats_come_without_a_camera(bench):
    with bench({"open_error": CameraError(CameraReason.NOT_FOUND, "gone")}) as b:
        b.worker.start()
        wait_until(lambda: b.listen() is not None and len(b.beats) >= 2)
        assert b.beats[-1].fields["captured"] == 0
        assert np.isnan(b.beats[-1].fields["last_frame_host_t_s"])


def test_a_capture_is_mean_and_variance_of_fresh_frames(bench):
    with bench({"steps": [90, 91], "again": [10, 12, 17, 200]}) as b:
        b.captured(2)
        b.worker.order(order("capture", frames=3))
        b.worker.start()
        reply = b.first("reply")
    np.testing.assert_allclose(reply.arrays["mean_dn"], np.full(SHAPE, 13.0), rtol=1e-6)
    np.testing.assert_allclose(reply.arrays["variance_dn2"], np.full(SHAPE, (2**2 + 5**2) / 4), rtol=1e-6)


def test_a_capture_from_a_recording_that_is_too_short_is_refused(bench):
    with bench({"steps": range(3), "ends": True}) as b:
        b.worker.start()
        b.worker.order(order("capture", frames=5))
        reply = b.first("reply")
        assert (reply.fields["request"], reply.fields["code"]) == (REQUEST, CameraReason.ENDED.code)
        assert "2 frames shorter" in reply.fields["detail"]


def test_a_run_goes_on_without_a_restart_of_its_camera_when_frames_are_asked_for(bench, operator):
    with bench({"steps": range(400), "interval_s": 0.002}) as b:
        b.worker.start()
        b.worker.order(measure(operator))
        wait_until(lambda: b.worker.measured >= 3)
        starts = b.script.starts
        b.worker.order(Message("capture", {"request": 9, "frames": 2}))
        refused = reply_to(b, 9).fields
        assert refused["code"] == RunReason.BUSY.code and refused["detail"] and refused["remedy"]
        batches = b.batches(40)
        assert b.script.starts == starts
        np.testing.assert_array_equal(np.diff(np.concatenate([batch.block_id for batch in batches])), 1)
        b.worker.order(order("finish"))
        b.worker.order(Message("capture", {"request": 10, "frames": 2}))
        assert reply_to(b, 10).arrays["mean_dn"].shape == SHAPE


def test_a_second_capture_is_refused_and_the_first_is_answered(bench):
    with bench({"steps": range(40), "interval_s": 0.002}) as b:
        b.worker.order(order("capture", frames=20))
        b.worker.order(Message("capture", {"request": 9, "frames": 2}))
        b.worker.start()
        assert reply_to(b, 9).fields["code"] == EngineReason.BUSY.code
        np.testing.assert_allclose(reply_to(b, REQUEST).arrays["mean_dn"], np.full(SHAPE, 9.5), rtol=1e-6)


def test_a_capture_that_nobody_waits_for_makes_room(bench):
    with bench({"steps": [10, 20]}) as b:
        b.worker.order(order("capture", frames=5))
        b.worker.order(Message("abandon", {"request": 8}))  # of another one
        b.worker.order(Message("capture", {"request": 9, "frames": 2}))
        b.worker.order(Message("abandon", {"request": REQUEST}))
        b.worker.order(Message("capture", {"request": 10, "frames": 2}))
        b.worker.start()
        assert (reply_to(b, 10).arrays["mean_dn"] == 15.0).all()
        assert reply_to(b, 9).fields["code"] == EngineReason.BUSY.code
        assert not [message for message in b.sent if message.fields.get("request") == REQUEST]


@pytest.mark.parametrize("kind", ["capture", "measure"])
def test_without_a_camera_orders_are_refused_with_a_reason(bench, operator, monkeypatch, kind):
    monkeypatch.setattr(module, "REWIND_S", 0.05)
    with bench({"open_error": CameraError(CameraReason.NOT_FOUND, "gone")}) as b:
        b.worker.start()
        b.worker.order(order("capture", frames=5) if kind == "capture" else measure(operator))
        fields = b.first("reply").fields
    assert fields["request"] == REQUEST
    assert fields["code"] == (EngineReason.SILENT if kind == "capture" else CameraReason.STALLED).code
    assert fields["detail"] and fields["remedy"]


def test_the_end_of_a_recording_is_told_once_after_its_last_batch(bench, operator):
    with bench({"steps": range(20), "ends": True}) as b:
        b.worker.order(measure(operator))
        b.worker.start()
        b.first("ended")
        time.sleep(0.15)
        kinds = [message.kind for message in b.listen() if message.kind in ("batch", "ended")]
        assert kinds.count("ended") == 1 and kinds[-1] == "ended"
        assert sum(len(batch_from(m)) for m in b.sent if m.kind == "batch") == b.worker.measured == 20


def test_the_end_of_an_older_stream_does_not_end_the_new_one(bench, operator):
    with bench({"steps": range(20), "interval_s": 0.01}) as b:
        b.worker.order(measure(operator))
        b.worker.start()
        wait_until(lambda: b.worker.measured)
        b.worker.recording_ended(b.worker._stream - 1)
        time.sleep(0.3)
        assert "ended" not in [message.kind for message in b.listen()]


def test_a_preview_is_the_newest_frame_and_where_it_stands(bench, operator):
    with bench({"steps": range(400), "interval_s": 0.005}) as b:
        b.worker.start()
        b.worker.order(order("preview"))
        idle = b.first("reply")
        assert idle.arrays["image"].shape == SHAPE and idle.arrays["image"].dtype == np.uint16
        assert idle.fields["frame"] == -1 and idle.fields["host_t_s"] == pytest.approx(time.monotonic(), abs=5)
        b.sent.clear()
        b.worker.order(measure(operator))
        wait_until(lambda: b.worker.measured >= 2)
        b.worker.order(order("preview"))
        running = wait_until(lambda: next((m for m in b.listen() if m.arrays.keys() == {"image"}), None))
        assert running.fields["frame"] >= 2
        assert (running.arrays["image"] == running.arrays["image"][0, 0]).all()


def test_batches_that_nobody_reads_are_dropped_and_counted(bench, operator):
    with bench({"steps": range(200), "interval_s": 0.002}, outbox=4) as b:
        b.worker.order(measure(operator))
        b.worker.start()
        wait_until(lambda: b.outbox.dropped_frames > 20)
        assert b.worker.counters()["dropped"]["link.full"] > 20
        assert b.outbox.depth == 4
        assert b.worker.is_alive()


def test_orders_are_bounded(bench):
    with bench({}) as b:
        for _ in range(64):
            b.worker.order(order("preview"))
        with pytest.raises(EngineError) as caught:
            b.worker.order(order("preview"))
        assert caught.value.reason is EngineReason.PROTOCOL


def test_the_outbox_keeps_its_bound_and_its_order(monkeypatch):
    monkeypatch.setattr(module, "PUT_S", 0.05)
    outbox = Outbox(2)
    outbox.put_batch(Message("batch", {"n": 0}), 5)
    outbox.put(Message("reply"))
    outbox.put_batch(Message("batch", {"n": 1}), 7)
    outbox.put_if_room(Message("heartbeat"))
    assert (outbox.depth, outbox.dropped_frames) == (2, 7)
    with pytest.raises(EngineError, match="does not read"):
        outbox.put(Message("reply"))
    outbox.resize(3)
    outbox.put(None)
    assert [outbox.get().kind, outbox.get().kind, outbox.get()] == ["batch", "reply", None]


def test_one_frame_has_no_variance():
    capture = Capture(1, CameraIdentity("1", 2, 3, PixelFormat.MONO16))
    assert capture.add(np.full((2, 3), 7, np.uint16))
    result = capture.result()
    assert (result["mean_dn"] == 7).all() and np.isnan(result["variance_dn2"]).all()


def test_the_variance_of_a_capture_is_the_noises_and_not_a_slow_walks():
    rng = np.random.default_rng(3)
    capture = Capture(400, CameraIdentity("1", 40, 50, PixelFormat.MONO16))
    for n in range(400):
        done = capture.add(np.rint(1000 + 0.5 * n + rng.normal(0, 9, (40, 50))).astype(np.uint16))
        assert done == (n == 399)
    assert capture.result()["variance_dn2"].mean() == pytest.approx(81.3, rel=0.02)


def masks_order(operator, version):
    message = masks_message(operator, np.empty(0, np.int32), version)
    message.fields["request"] = 9
    return message


def reply_to(b, request):
    return wait_until(lambda: next((m for m in b.listen() if m.fields.get("request") == request), None))


def test_other_masks_measure_from_a_frame_on_that_the_reply_names(bench, operator):
    known = (np.empty(0), np.empty((0, 4)))
    with bench({"steps": range(400), "interval_s": 0.002}) as b:
        b.worker.start()
        b.worker.order(measure(operator, rewind=False, baseline=known))
        b.batches(20)
        b.worker.order(masks_order(operator, 2))
        first = reply_to(b, 9).fields["from_frame"]
        batches = b.batches(first + 20)
        before = b.sent[: b.sent.index(reply_to(b, 9))]
    numbers = np.concatenate([batch.frame for batch in batches])
    np.testing.assert_array_equal(numbers, range(len(numbers)))
    np.testing.assert_array_equal(np.diff(np.concatenate([batch.block_id for batch in batches])), 1)
    for batch in batches:
        assert ((batch.frame >= first) == (batch.mask_version == 2)).all()
    told = [batch_from(m) for m in before if m.kind == "batch"]
    assert sum(map(len, told)) == first, "what the old masks measured goes out before the reply"


def test_masks_that_cannot_be_changed_are_refused_and_the_run_goes_on(bench, operator):
    with bench({"steps": range(400), "interval_s": 0.002}) as b:
        b.worker.start()
        b.worker.order(masks_order(operator, 2))
        assert reply_to(b, 9).fields["code"] == RunReason.NOT_RUNNING.code
        b.listen().clear()
        b.worker.order(measure(operator, rewind=False))  # the frames are black: its baseline never ends
        b.batches(10)
        b.worker.order(masks_order(operator, 2))
        assert reply_to(b, 9).fields["code"] == MaskReason.BASELINE.code
        measured = b.worker.measured
        wait_until(lambda: b.worker.measured > measured + 10)
        assert {batch.mask_version for batch in b.batches(measured)} == {1}
