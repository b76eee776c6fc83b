"""The daemon's side of the engine: starts it, talks to it, watches it, restarts it, and stops after a bounded
number of tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from daemon.config import CameraSettings, EngineSettings
from daemon.engine.book import EngineBook
from daemon.engine.child import end, spawn
from daemon.engine.link import Message, read_message
from daemon.engine.measures import MeasureBatch
from daemon.engine.transfer import Transfer
from daemon.engine.wire import batch_from
from daemon.errors import CameraError, CameraReason, EngineError, EngineReason, InstrumentError, Reason, all_reasons
from daemon.parts import PartState, PartStatus, Preview
from hw.camera.contract import CameraInfo, PixelFormat

log = logging.getLogger("engine.host")

REQUEST_S = 5.0
PREVIEW_KEEP_S = 0.1
CHECK_S = 0.2
STOP_S = 3.0


class EngineHost:
    """Owns the engine process. Callbacks run on the event loop and must not block.

    `on_batch(batch)`, `on_camera(kind, fields)` with kind `open`, `lost` or `ended`, `on_restart()` after a new engine
    is ready, `on_progress(text)` while kernels compile, `on_fault(code, detail, remedy)` of engine and camera.
    """

    def __init__(self, camera: CameraSettings, engine: EngineSettings) -> None:
        self._camera, self._engine = camera, engine
        self._camera_settings: dict[str, Any] = {}
        """What of the camera was changed since, which a restarted engine must be told."""
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._listener: asyncio.Task[None] | None = None
        self._requests: dict[int, asyncio.Future[Message]] = {}
        self._next_request = 1
        self._restarts: deque[float] = deque()
        self._state: PartState = "stopped"
        self._problem: InstrumentError | None = None
        self._fault: EngineError | None = None
        """What makes the present engine useless, beside its death and its silence."""
        self._camera_problem: dict[str, str] | None = None
        self._last_heard = 0.0
        self._ready = asyncio.Event()
        self._camera_open = asyncio.Event()
        self._preview: tuple[float, Preview] | None = None
        self._preview_lock = asyncio.Lock()
        self.book = EngineBook()
        self.restarts = 0
        self.camera_opens = 0
        """How often a camera was opened, by all engines."""
        self.calibrating = False
        """Whether frames are being taken for a calibration."""
        self.info: CameraInfo | None = None
        self.on_batch: Callable[[MeasureBatch], None] = lambda batch: None
        self.on_camera: Callable[[str, dict[str, Any]], None] = lambda kind, fields: None
        self.on_restart: Callable[[], None] = lambda: None
        self.on_fault: Callable[[str, str, str], None] = lambda code, detail, remedy: None
        self.on_progress: Callable[[str], None] = lambda text: None
        self.on_calibration: Callable[[str, np.ndarray, dict[str, Any]], Awaitable[None]] = _forget

    @property
    def pid(self) -> int | None:
        """Process id of the running engine."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start the engine and wait until its kernels are ready; the camera may still be missing. Raises
        `EngineError`.
        """
        self._state = "starting"
        await self._spawn()
        supervisor = self._begin(self._supervise(), "engine-supervisor")
        ready = asyncio.create_task(self._ready.wait(), name="engine-ready")
        limit_s = self._engine.start_timeout_s
        try:
            await asyncio.wait([ready, supervisor], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if not self._ready.is_set():
            problem = EngineError(EngineReason.SILENT, f"the camera engine was not ready within {limit_s:g} s")
            raise self._problem or problem

    async def stop(self) -> None:
        """End the engine; idempotent."""
        self._state = "stopped"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._end_process()

    async def camera(self, timeout_s: float) -> CameraInfo:
        """The open camera's description. Raises `CameraError` when none opened in time."""
        try:
            await asyncio.wait_for(self._camera_open.wait(), timeout_s)
        except TimeoutError:
            problem = self._camera_problem or {}
            reason = _reason(problem.get("reason", ""), CameraReason.STALLED)
            raise CameraError(reason, problem.get("detail", "the camera did not open in time")) from None
        if self.info is None:
            raise CameraError(CameraReason.NOT_FOUND, "the camera described nothing")
        return self.info

    async def request(self, message: Message, timeout_s: float = REQUEST_S) -> Message:
        """Send an order and wait for its reply. Raises `EngineError`, or the error the engine answered with."""
        number = self._next_request
        self._next_request += 1
        message.fields["request"] = number
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            await self._send(message)
            reply = await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise EngineError(
                EngineReason.SILENT, f"the engine did not answer '{message.kind}' in {timeout_s:g} s"
            ) from None
        finally:
            self._requests.pop(number, None)
        if "code" in reply.fields:
            raise CameraError(_reason(reply.fields["code"], CameraReason.BAD_SETTING), reply.fields["detail"])
        return reply

    async def capture(self, frames: int, timeout_s: float) -> Transfer:
        """Statistics of the next `frames` frames. Refused with `RunReason.BUSY` while the engine measures a run, with
        `EngineReason.BUSY` during another capture.
        """
        order = Message("capture", {"frames": frames})
        try:
            reply = await self.request(order, timeout_s)
        except (asyncio.CancelledError, EngineError):
            with contextlib.suppress(EngineError):
                self._write(Message("abandon", {"request": order.fields["request"]}))  # else the next one is refused
            raise
        return Transfer.from_arrays(reply.arrays)

    async def preview(self) -> Preview | None:
        """The newest frame, at most a tenth of a second old; None without frames."""
        async with self._preview_lock:
            if self._preview is not None and time.monotonic() - self._preview[0] < PREVIEW_KEEP_S:
                return self._preview[1]
            try:
                reply = await self.request(Message("preview"), 2.0)
            except InstrumentError:
                return None
            fields = reply.fields
            depth = self.info.bit_depth if self.info is not None else 16
            preview = Preview(
                reply.arrays["image"],
                depth,
                fields["frame"],
                fields["host_t_s"],
                fields["drift_y_px"],
                fields["drift_x_px"],
            )
            self._preview = (time.monotonic(), preview)
            return preview

    async def configure_camera(self, settings: dict[str, Any]) -> None:
        """Change camera settings while it streams; they hold for cameras and engines that come after, too."""
        reply = await self.request(Message("configure", {"settings": settings}), 2 * REQUEST_S)
        self._camera_settings |= settings
        if self.info is not None:
            self.info = replace(self.info, **reply.fields["camera"])

    def status(self) -> PartStatus:
        """The engine's line of the status."""
        values = {
            "pid": self.pid,
            "restarts": self.restarts,
            **{
                name: self.book.counters.get(name) for name in ("captured", "measured", "idle", "dropped", "ring_depth")
            },
        }
        if self._problem is not None:
            problem = self._problem
            return PartStatus("engine", self._state, problem.code, problem.detail, problem.remedy, values)
        return PartStatus("engine", self._state, values=values)

    def camera_status(self) -> PartStatus:
        """The camera's line of the status."""
        info = self.info
        values: dict[str, Any] = {}
        if info is not None:
            values = {
                "model": info.model, "serial": info.serial, "height_px": info.height_px, "width_px": info.width_px,
                "pixel_format": info.pixel_format.value, "frame_rate_hz": info.frame_rate_hz,
                "exposure_us": info.exposure_us, "notes": list(info.notes),
            }  # fmt: skip
        if self._camera_problem is not None:
            problem = self._camera_problem
            state: PartState = "stopped" if problem["reason"] == CameraReason.ENDED.code else "failed"
            return PartStatus("camera", state, problem["reason"], problem["detail"], problem["remedy"], values)
        return PartStatus("camera", "ready" if self._camera_open.is_set() else "starting", values=values)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(asyncio.create_task(work, name=name))
        return self._tasks[-1]

    async def _spawn(self) -> None:
        self._ready.clear()
        self._camera_open.clear()
        self._fault = None
        self._last_heard = time.monotonic()
        try:
            self._process, reader, self._writer = await spawn("daemon.engine")
        except OSError as error:
            self._fault = EngineError(EngineReason.DIED, f"the camera engine could not be started: {error}")
            return
        self._listener = asyncio.create_task(self._listen(reader), name="engine-listener")
        await self._send(Message("open", self._opening()))

    def _opening(self) -> dict[str, Any]:
        return {
            "driver": self._camera.driver,
            "options": self._camera.options,
            "camera_settings": self._camera_settings,
            "frame_deadline_s": self._camera.frame_deadline_s,
            "ring_frames": self._engine.ring_frames,
            "batch_s": self._engine.batch_s,
            "link_batches": self._engine.link_batches,
        }

    async def _send(self, message: Message) -> None:
        writer = self._write(message)
        with contextlib.suppress(ConnectionError):  # the supervisor sees the end of the process
            await writer.drain()

    def _write(self, message: Message) -> asyncio.StreamWriter:
        """Give a message to the link, which is returned; it may not have gone yet."""
        writer = self._writer
        if writer is None or writer.is_closing():
            raise EngineError(EngineReason.DIED, "the engine is not running")
        for buffer in message.encode():
            writer.write(buffer)
        return writer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while (message := await read_message(reader)) is not None:
                self._last_heard = time.monotonic()
                self._dispatch(message)
        except EngineError as error:
            self._fault = error
        except Exception:
            log.exception("a message of the camera engine")
            self._fault = EngineError(EngineReason.PROTOCOL, "a message of the camera engine could not be used")

    def _dispatch(self, message: Message) -> None:
        if message.kind == "batch":
            batch = batch_from(message)
            self.book.received(len(batch))
            self.on_batch(batch)
        elif message.kind == "heartbeat":
            self.book.heartbeat(message.fields)
        elif message.kind == "reply":
            future = self._requests.get(message.fields["request"])
            if future is not None and not future.done():
                future.set_result(message)
        elif message.kind == "log":
            log.log(message.fields["level"], "%s", message.fields["text"])
        elif message.kind == "warming":
            self.on_progress(f"compiling kernels {message.fields['done']}/{message.fields['total']}")
        elif message.kind == "ready":
            self._state, self._problem = "ready", None
            self._ready.set()
        else:
            self._camera_news(message)

    def _camera_news(self, message: Message) -> None:
        if message.kind == "camera_open":
            fields = dict(message.fields)
            fields["pixel_format"] = PixelFormat(fields["pixel_format"])
            fields["notes"] = tuple(fields.get("notes", ()))
            self.info = CameraInfo(**{**fields, **message.arrays})
            self._camera_problem = None
            self.camera_opens += 1
            self._camera_open.set()
            for note in self.info.notes:
                log.warning("camera: %s", note)
            self.on_camera("open", {})
            return
        fields = message.fields
        if message.kind == "ended":  # the camera stays usable: what needs frames rewinds it
            reason = CameraReason.ENDED
            fields = {"reason": reason.code, "detail": "the recording was replayed to its end", "remedy": reason.remedy}
        else:
            self._camera_open.clear()
        self._camera_problem = {name: str(fields[name]) for name in ("reason", "detail", "remedy")}
        if message.kind != "ended":
            self.on_fault(*self._camera_problem.values())
        self.on_camera("ended" if message.kind == "ended" else "lost", fields)

    async def _supervise(self) -> None:
        """Restart an engine that died or fell silent, within the budget."""
        while True:
            await asyncio.sleep(CHECK_S)
            problem = self._trouble()
            if problem is None:
                continue
            log.error("%s", problem.detail)
            self.on_fault(problem.code, problem.detail, problem.remedy)
            self._state, self._problem = "starting", problem  # at once: one that hangs takes a while to end
            await self._end_process()
            self.book.engine_ended()
            self._camera_problem = None
            if not self._may_restart():
                self._state = "failed"
                detail = f"{problem.detail}; {self._engine.max_restarts} restarts did not help"
                self._problem = gave_up = EngineError(EngineReason.GAVE_UP, detail)
                self.on_fault(gave_up.code, detail, gave_up.remedy)
                return
            self.restarts += 1
            await self._spawn()
            self._begin(self._announce(), "engine-announce")

    async def _announce(self) -> None:
        await self._ready.wait()
        self.on_restart()

    def _trouble(self) -> EngineError | None:
        process = self._process
        if self._fault is not None or process is None:
            return self._fault
        if process.returncode is not None:
            code = process.returncode
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return EngineError(EngineReason.DIED, f"the camera engine ended ({how})")
        limit = self._engine.silence_s if self._ready.is_set() else self._engine.start_timeout_s
        silent_s = time.monotonic() - self._last_heard
        if silent_s > limit:
            return EngineError(EngineReason.SILENT, f"the camera engine was silent for {silent_s:.1f} s")
        return None

    def _may_restart(self) -> bool:
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > self._engine.restart_window_s:
            self._restarts.popleft()
        if len(self._restarts) >= self._engine.max_restarts:
            return False
        self._restarts.append(now)
        return True

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        writer, self._writer = self._writer, None
        listener, self._listener = self._listener, None
        try:
            if process is not None and writer is not None:
                await end(process, writer, STOP_S)
        finally:  # also when the daemon stops while an engine that hangs is being ended
            for future in self._requests.values():
                if not future.done():
                    future.set_exception(EngineError(EngineReason.DIED, "the engine ended before it answered"))
            if listener is not None:
                listener.cancel()  # what a dead engine still had to say belongs to no other
                await asyncio.gather(listener, return_exceptions=True)

    async def calibrate(self, kind: Literal["dark", "flat"], frames: int) -> dict[str, Any]:
        """Average `frames` frames, hand them to `on_calibration`, return their summary: also what of the camera decides
        which runs they fit. Raises `EngineError` (BUSY) during another calibration, and what `camera` and `capture` do.
        """
        if self.calibrating:
            raise EngineError(EngineReason.BUSY, "another calibration is being taken")
        self.calibrating = True
        try:
            info = await self.camera(REQUEST_S)
            taken = await self.capture(frames, REQUEST_S + frames)
        finally:
            self.calibrating = False
        noise_dn = float(np.sqrt(np.nanmean(taken.variance_dn2))) if frames > 1 else float("nan")
        summary = {
            "frames": frames, "mean_dn": float(taken.mean_dn.mean()), "noise_dn": noise_dn,
            "pixel_format": info.pixel_format.value, "bit_depth": info.bit_depth, "exposure_us": info.exposure_us,
        }  # fmt: skip
        await self.on_calibration(kind, taken.mean_dn, summary)
        return summary


async def _forget(kind: str, mean_dn: np.ndarray, summary: dict[str, Any]) -> None:
    """Calibrations go nowhere until somebody asks for them."""


def _reason(code: str, default: Reason) -> Reason:
    return next((reason for reason in all_reasons() if reason.code == code), default)
