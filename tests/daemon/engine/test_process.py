import asyncio
import logging
import socket
import threading

import numpy as np
import psutil
import pytest

from daemon.engine import acquisition as acquisition_module
from daemon.engine import process as module
from daemon.engine.child import end, spawn
from daemon.engine.host import EngineHost
from daemon.engine.link import Message, read_message, receive, send
from daemon.engine.worker import Outbox
from daemon.errors import CameraReason
from hw.camera.contract import CameraInfo, PixelFormat
from hw.errors import CameraError
from tests.daemon.engine.scripted import Life, Script

OPENING = {
    "driver": "twin", "options": {}, "camera_settings": {}, "frame_deadline_s": 5.0,
    "ring_frames": 8, "batch_s": 0.02, "link_batches": 16,
}  # fmt: skip


class InThread:
    """The life of an engine in a thread of this process, over a scripted camera."""

    def __init__(self, *lives):
        self.script = Script(list(lives))
        self.link, theirs = socket.socketpair()
        self.link.settimeout(5.0)
        self._theirs = theirs
        self.outbox = Outbox(64)
        self.code = None
        self._sender = threading.Thread(target=module._send_all, args=(theirs, self.outbox))
        self._life = threading.Thread(target=self._run)

    def _run(self):
        module._warm(self.outbox)
        self.code = module._life(self._theirs, self.outbox)

    def __enter__(self):
        self._sender.start()
        self._life.start()
        return self

    def __exit__(self, *_):
        self.link.shutdown(socket.SHUT_WR)
        self.ended()
        self.outbox.put(None)
        self.link.close()
        self._sender.join(5.0)
        self._theirs.close()

    def ended(self):
        self._life.join(5.0)
        assert not self._life.is_alive()
        return self.code

    def send(self, kind, **fields):
        send(self.link, Message(kind, fields))

    def first(self, kind):
        while (message := receive(self.link)) is not None:
            if message.kind == kind:
                return message
        raise AssertionError(f"the link ended before '{kind}'")


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(acquisition_module, "POLL_S", 0.01)
    monkeypatch.setattr(acquisition_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(module, "warm_kernels", lambda progress: progress("one", 0, 1))

    def build(*lives):
        one = InThread(*lives)
        monkeypatch.setattr(acquisition_module, "build_driver", one.script.camera)
        return one

    return build


def test_it_tells_its_start_and_its_camera(engine):
    with engine(Life(range(3))) as one:
        one.send("open", **OPENING)
        assert one.first("warming").fields == {"kernel": "one", "done": 0, "total": 1}
        kinds = {one.first("camera_open").kind}
        one.send("quit")
        assert one.ended() == 0
    assert kinds == {"camera_open"}
    assert one.script.closes == len(one.script.opened_s) == 1


def test_losses_of_the_camera_reach_the_daemon(engine):
    with engine(Life([0, CameraError(CameraReason.UNPLUGGED, "pulled")]), Life()) as one:
        one.send("open", **OPENING)
        lost = one.first("camera_lost").fields
        assert lost == {"reason": "camera.unplugged", "detail": "pulled", "remedy": CameraReason.UNPLUGGED.remedy}
        assert one.first("camera_open").fields["model"] == "scripted"


def test_the_end_of_a_recording_reaches_the_daemon(engine):
    with engine(Life([0, 1], ends=True)) as one:
        one.send("open", **OPENING)
        one.first("ended")


def test_settings_are_answered_with_success_or_the_cameras_reason(engine):
    with engine(Life()) as one:
        one.send("open", **OPENING)
        one.first("camera_open")
        one.send("configure", request=1, settings={"exposure_us": 4.0})
        assert one.first("reply").fields == {"request": 1, "camera": {"exposure_us": 4.0, "frame_rate_hz": 100.0}}
        one.script.refuse = CameraError(CameraReason.BAD_SETTING, "exposure_us = 4")
        one.send("configure", request=2, settings={"exposure_us": 4.0})
        refused = one.first("reply").fields
        assert (refused["request"], refused["code"], refused["detail"]) == (2, "camera.bad_setting", "exposure_us = 4")
    assert one.script.settings == [{"exposure_us": 4.0}]


def test_settings_of_an_earlier_engine_hold_from_the_start(engine):
    with engine(Life()) as one:
        one.send("open", **OPENING | {"camera_settings": {"exposure_us": 4.0}})
        assert one.first("camera_open").fields["exposure_us"] == 4.0


@pytest.mark.parametrize("opening", [None, "preview"])
def test_a_daemon_that_says_nothing_sensible_first_is_left(engine, opening):
    with engine(Life()) as one:
        if opening is not None:
            one.send(opening)
        else:
            one.link.shutdown(socket.SHUT_WR)
        assert one.ended() == 1
    assert not one.script.opened_s


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_camera_thread_that_dies_takes_the_engine_with_it(engine):
    with engine(Life([0, RuntimeError("a fault of the driver")])) as one:
        one.send("open", **OPENING)
        assert one.ended() == 0
    assert one.script.closes == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_kernel_thread_that_dies_takes_the_engine_with_it(engine):
    with engine(Life(range(3))) as one:
        one.send("open", **OPENING)
        one.send("an order nobody knows", request=1)
        assert one.ended() == 0


def test_maps_of_a_camera_travel_as_arrays():
    flat = np.linspace(0.5, 1.5, 12, dtype=np.float32).reshape(3, 4)
    info = CameraInfo("m", "s", 3, 4, PixelFormat.MONO12, 10.0, dark=None, flat=flat)
    message = module.camera_message(info)
    assert message.arrays.keys() == {"flat"}
    assert message.fields["flat"] is None and message.fields["pixel_format"] == "Mono12"


def test_notes_and_depth_of_a_camera_travel_to_the_host():
    info = CameraInfo("m", "s", 3, 4, PixelFormat.MONO16, 10.0, notes=("gamma stays on",), significant_bits=10)
    near, far = socket.socketpair()
    with near, far:
        send(near, module.camera_message(info))
        message = receive(far)
    host = EngineHost.__new__(EngineHost)
    host._camera_open, host.camera_opens, told = asyncio.Event(), 0, []
    host.on_camera = lambda *news: told.append(news)
    host._camera_news(message)
    assert host.info == info and host.info.bit_depth == 10 and told == [("open", {})]


def test_log_records_travel_and_never_wait():
    outbox = Outbox(2)
    handler = module._LinkHandler(outbox)
    record = logging.LogRecord("engine", logging.WARNING, "f", 1, "x" * 9000, (), None)
    for _ in range(5):
        handler.handle(record)
    assert outbox.depth == 2
    fields = outbox.get().fields
    assert (fields["level"], fields["logger"], len(fields["text"])) == (logging.WARNING, "engine", 4000)


async def hear_until(reader, kind):
    """The kinds heard up to the first message of `kind`."""
    heard = []
    async with asyncio.timeout(120):
        while not heard or heard[-1] != kind:
            heard.append((await read_message(reader)).kind)
    return heard


async def test_a_process_that_compiled_begins_anew_with_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    ran = []
    for _ in range(2):
        process, reader, writer = await spawn("daemon.engine")
        for buffer in Message("open", OPENING | {"driver": "none"}).encode():
            writer.write(buffer)
        heard = await hear_until(reader, "ready")
        ran.append((heard.count("warming"), "compiled" in psutil.Process(process.pid).cmdline()))
        await end(process, writer, 10.0)
    (first, anew), (again, twice) = ran
    assert anew and not twice
    assert first == 2 * again  # told once while compiling and once while loading


async def test_the_process_ends_when_the_daemon_hangs_up_and_not_by_signals_to_the_group(capfd):
    process, reader, writer = await spawn("daemon.engine")
    opening = OPENING | {"options": {"height_px": 96, "width_px": 128, "particles": 3, "frame_rate_hz": 20}}
    for buffer in Message("open", opening).encode():
        writer.write(buffer)
    async with asyncio.timeout(40):
        while (await read_message(reader)).kind != "ready":
            pass
        process.send_signal(2)
        process.send_signal(15)
        while (await read_message(reader)).kind != "heartbeat":
            pass
    assert process.returncode is None
    await end(process, writer, 10.0)
    assert process.returncode == 0
    assert "Traceback" not in capfd.readouterr().err
