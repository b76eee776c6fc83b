"""A camera engine in the daemon's own process: the real measuring on a small scene, behind the engine's own link.

It takes the place of `daemon.engine.child.spawn`, `end` and `ask`: the host on the other side reads and writes the very
messages, and cannot tell. What the engine did, and what is wrong with it, is known here without asking the daemon.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from daemon.engine.link import PREFIX, Message, _decode, _sizes
from daemon.engine.pipeline import Pipeline
from daemon.engine.process import camera_message
from daemon.engine.transfer import TransferSums
from daemon.engine.wire import batch_message, masks_order, measure_order
from daemon.errors import CameraReason, EngineReason, RunReason
from daemon.runs.prepare import _answer
from hw.camera.contract import CameraInfo, FrameStamp, PixelFormat
from tests.scenarios.schedule import SCHEDULE
from tests.scenes import PoissonScene

EXIT_S = 0.1


class Picture:
    """What every scenario's camera sees: made once, shared by all of them."""

    def __init__(self) -> None:
        scene = PoissonScene(seed=8, height=96, width=128, particles=3, radius_px=(5.0, 8.0), margin_px=12.0)
        mean_e = scene.mean_e()
        self.shape = mean_e.shape
        self.frames = [scene.expose(mean_e) for _ in range(8)]
        sums = TransferSums(self.shape)
        for frame in self.frames:
            sums.add(frame)
        self.transfer = sums.result().arrays()
        self._answers: dict[bytes, Message] = {}

    def prepared(self, order: Message) -> Message:
        """What the preparing process would answer, found once for each order."""
        key = b"".join(bytes(part) for part in order.encode())
        if key not in self._answers:
            self._answers[key] = _through(_answer(_through(order)))
        return self._answers[key]


def _through(message: Message) -> Message:
    """The message as the other end reads it."""
    data = bytearray().join(message.encode())
    header_bytes, _ = _sizes(bytes(data[: PREFIX.size]))
    header = data[PREFIX.size : PREFIX.size + header_bytes]
    return _decode(bytes(header), data[PREFIX.size + header_bytes :])


@dataclass
class Optics:
    """The camera, and all engines that were ever started; outlives the daemon."""

    picture: Picture
    frame_rate_hz: float = 1.0
    tick_s: float = 1.0
    """Between two batches."""
    start_s: float = 1.0
    camera_there: bool = True
    camera_lost_s: float = -1e9
    """Since when the camera is gone, or back; monotonic."""
    start_fault: str = ""
    """What the next engines do instead of starting: `exit` or `hang`."""
    refusals: int = 0
    """Orders that are refused, beginning with the next."""
    prepare_fault: str = ""
    """What the next preparing does: `die` or `slow`."""
    engines: list[Engine] = field(default_factory=list)
    ending: Callable[[], bool] = lambda: False
    """Whether the daemon is being stopped."""
    note: Callable[[str], None] = lambda what: None

    @property
    def engine(self) -> Engine | None:
        """The one that lives, if any."""
        return self.engines[-1] if self.engines and self.engines[-1].returncode is None else None

    async def spawn(self, module: str) -> tuple[Any, asyncio.StreamReader, Any]:
        """In place of `daemon.engine.child.spawn`."""
        engine = Engine(self, asyncio.get_running_loop())
        self.engines.append(engine)
        return engine, engine.reader, engine

    async def end(self, process: Engine, writer: Any, grace_s: float) -> None:
        """In place of `daemon.engine.child.end`."""
        if process.well and math.isnan(process.fault_s) and not self.ending():
            self.note("BROKEN: the daemon ends a healthy engine")
        if process.returncode is None:
            await asyncio.sleep(grace_s if process.hung else EXIT_S)
            process.exit(-9 if process.hung else 0)

    async def ask(self, module: str, order: Message, timeout_s: float) -> Message:
        """In place of `daemon.engine.child.ask`."""
        fault, self.prepare_fault = self.prepare_fault, ""
        await asyncio.sleep(timeout_s if fault == "slow" else 0.5)
        if fault:
            raise TimeoutError if fault == "slow" else ChildProcessError("exit status 1")
        return self.picture.prepared(order)

    def set_camera(self, there: bool) -> None:
        """Unplug it or plug it in."""
        if there is not self.camera_there:
            self.camera_there, self.camera_lost_s = there, SCHEDULE.now_s
            if self.engine is not None:
                self.engine.camera_changed()


class Engine:
    """One engine process and its end of the link."""

    def __init__(self, optics: Optics, loop: asyncio.AbstractEventLoop) -> None:
        self.optics, self.loop = optics, loop
        self.pid = 4_000_000 + len(optics.engines)  # no such process: its memory is nobody's
        self.returncode: int | None = None
        self.reader = asyncio.StreamReader(limit=1 << 22, loop=loop)
        self.began_s = SCHEDULE.now_s
        self.hung = False
        self.fault_s = float("nan")
        """When it died or fell silent."""
        self.started = False
        self.opened = False
        self.captured = self.measured = self.idle = 0
        self.delivered = 0
        """Frames in batches that were sent."""
        self.dropped: Counter[str] = Counter()
        self._buffer = bytearray()
        self._pipeline: Pipeline | None = None
        self._capture: tuple[int, int] | None = None
        self._preview: int | None = None
        self._next_frame_s = SCHEDULE.now_s
        self._block = 0
        self._seen_s = float("nan")

    # the host's end of the link, as a stream writer

    def write(self, data: Any) -> None:
        """Take bytes of the host."""
        self._buffer += data
        while len(self._buffer) >= PREFIX.size:
            header_bytes, payload_bytes = _sizes(bytes(self._buffer[: PREFIX.size]))
            whole = PREFIX.size + header_bytes + payload_bytes
            if len(self._buffer) < whole:
                return
            raw, self._buffer = self._buffer[PREFIX.size : whole], self._buffer[whole:]
            message = _decode(
                bytes(raw[:header_bytes]), raw[header_bytes:]
            )  # arrays that can be written, as a socket's
            self.loop.call_soon(self._obey, message)

    async def drain(self) -> None:
        """Nothing waits."""

    def is_closing(self) -> bool:
        """Whether the process is gone."""
        return self.returncode is not None

    # faults

    @property
    def well(self) -> bool:
        """Alive, started and talking, with its camera open."""
        return self.returncode is None and self.started and not self.hung and self.opened

    def exit(self, code: int) -> None:
        """End the process."""
        if self.returncode is None:
            self.returncode, self.fault_s = code, SCHEDULE.now_s
            self.reader.feed_eof()

    def hang(self) -> None:
        """Say nothing more."""
        if not self.hung:
            self.hung, self.fault_s = True, SCHEDULE.now_s

    def garble(self) -> None:
        """Send what no engine sends."""
        self.fault_s = SCHEDULE.now_s
        self.started = False
        self.reader.feed_data(b"no message at all, but long enough")

    def lose(self, frames: int) -> None:
        """Frames that the camera says it took and that never came."""
        self.captured += frames
        self.dropped["camera.lost"] += frames
        self._block += frames

    def camera_changed(self) -> None:
        """The camera came or went."""
        if self.started and not self.hung and self.returncode is None:
            self.loop.call_later(0.5, self._look_for_camera)

    # its life

    def _send(self, message: Message) -> None:
        if self.returncode is None and not self.hung:
            self.reader.feed_data(b"".join(bytes(part) for part in message.encode()))

    def _obey(self, message: Message) -> None:
        if self.returncode is not None or self.hung:
            return
        if message.kind == "open":
            fault, self.optics.start_fault = self.optics.start_fault, ""
            if fault == "hang":
                self.hang()
            begins = partial(self.exit, 3) if fault == "exit" else self._ready
            self.loop.call_later(self.optics.start_s, begins)
            return
        if self.optics.refusals > 0:
            self.optics.refusals -= 1
            reason = CameraReason.BAD_SETTING
            self._reply(message, code=reason.code, detail="the scenario refuses this order", remedy=reason.remedy)
            return
        getattr(self, f"_on_{message.kind}")(message)

    def _ready(self) -> None:
        if self.returncode is None and not self.hung:
            self.started = True
            self._send(Message("ready", {"pid": self.pid}))
            self._look_for_camera()
            self._next_frame_s = SCHEDULE.now_s
            self._tick()

    def _look_for_camera(self) -> None:
        if self.optics.camera_there and not self.opened:
            self.opened, self._block = True, 0
            height, width = self.optics.picture.shape
            self._send(camera_message(CameraInfo(
                "scenario", "1", height, width, PixelFormat.MONO12, self.optics.frame_rate_hz, gain_e_per_dn=8.0,
                read_noise_e=7.0, dark_dn=64.0, clock_id="camera",
            )))  # fmt: skip
        elif not self.optics.camera_there and self.opened:
            self.opened = False
            reason = CameraReason.UNPLUGGED
            self._send(Message("camera_lost", {
                "reason": reason.code, "detail": "the scenario unplugged the camera", "remedy": reason.remedy,
            }))  # fmt: skip

    def _tick(self) -> None:
        if self.returncode is not None or self.hung:
            return
        period_s = 1.0 / self.optics.frame_rate_hz
        while self._next_frame_s <= SCHEDULE.now_s:
            if self.opened:
                self._expose(self._next_frame_s)
            self._next_frame_s += period_s
        self._send_batch()
        self._send(Message("heartbeat", self.counters()))
        self.loop.call_later(self.optics.tick_s, self._tick)

    def _expose(self, host_t_s: float) -> None:
        image = self.optics.picture.frames[self._block % len(self.optics.picture.frames)]
        self.captured += 1
        self._seen_s = host_t_s
        stamp = FrameStamp(self._block, host_t_s - 500.0, host_t_s)
        self._block += 1
        if self._preview is not None:
            fields = {"request": self._preview, "frame": -1, "host_t_s": host_t_s, "drift_y_px": 0.0, "drift_x_px": 0.0}
            self._preview = None
            self._send(Message("reply", fields, {"image": image}))
        if self._capture is not None:
            request, left = self._capture
            self._capture = (request, left - 1) if left > 1 else None
            if self._capture is None:
                self._send(Message("reply", {"request": request}, self.optics.picture.transfer))
        if self._pipeline is None:
            self.idle += 1
            return
        self._pipeline.add(image.reshape(-1).view(np.uint8), stamp)
        self.measured += 1

    def counters(self) -> dict[str, Any]:
        """Of a heartbeat."""
        return {
            "captured": self.captured, "measured": self.measured, "idle": self.idle, "dropped": dict(self.dropped),
            "ring_depth": 0, "ring_bound": 64, "link_depth": 0, "busy_s": 0.0,
            "last_frame_host_t_s": self._seen_s, "cpu_s": 0.0,
        }  # fmt: skip

    def _send_batch(self) -> None:
        batch = self._pipeline.take() if self._pipeline is not None else None
        if batch is not None:
            self.delivered += len(batch)
            self._send(batch_message(batch))

    def _reply(self, message: Message, **fields: Any) -> None:
        self._send(Message("reply", {"request": message.fields["request"], **fields}))

    def _on_measure(self, message: Message) -> None:
        self._pipeline = Pipeline(**measure_order(message))
        self._reply(message)

    def _on_masks(self, message: Message) -> None:
        if self._pipeline is None:
            reason = RunReason.NOT_RUNNING
            self._reply(message, code=reason.code, detail="the engine is not measuring", remedy=reason.remedy)
            return
        self._send_batch()
        self._pipeline = self._pipeline.with_masks(**masks_order(message))
        self._reply(message, from_frame=self._pipeline.next_frame)

    def _on_finish(self, message: Message) -> None:
        if self._pipeline is not None:
            self._pipeline.close_baseline()
        self._send_batch()
        self._pipeline = None
        self._reply(message)

    def _on_capture(self, message: Message) -> None:
        busy = RunReason.BUSY if self._pipeline is not None else EngineReason.BUSY
        if self._pipeline is not None or self._capture is not None:
            self._reply(message, code=busy.code, detail="the engine takes other frames", remedy=busy.remedy)
            return
        self._capture = (message.fields["request"], message.fields["frames"])

    def _on_abandon(self, message: Message) -> None:
        if self._capture is not None and self._capture[0] == message.fields["request"]:
            self._capture = None

    def _on_preview(self, message: Message) -> None:
        self._preview = message.fields["request"]

    def _on_configure(self, message: Message) -> None:
        settings = message.fields["settings"]
        self._reply(
            message, camera={"exposure_us": settings["exposure_us"], "frame_rate_hz": self.optics.frame_rate_hz}
        )
