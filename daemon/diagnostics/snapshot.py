"""Evidence at the first fault: what kernel, bus, journal, counters and the last frames said just then.

When a field engineer comes, days later, kernel and journal have forgotten. One snapshot a kind of fault within
`EVERY_S`, the newest `KEPT` of them below ``snapshots/`` in the state directory; bundles carry them.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import shutil
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from daemon.diagnostics import evidence
from daemon.diagnostics.archive import Archive
from daemon.diagnostics.clock_watch import wall_time_s
from daemon.errors import StoreError
from daemon.parts import PartStatus, Preview

log = logging.getLogger(__name__)

EVERY_S = 6 * 3600.0  # a cable that is loose all night tells nothing new each time
KEPT = 8
KEPT_BYTES = 24_000_000
MAX_BYTES = 6_000_000  # of one, before compression
SPARE_MB = 50  # free beyond `store.min_free_mb`, or none is written: results come first
WATCH_S = 1.0
FRAME_PERIOD_S = 30.0  # how old the last frame before a fault may be
FRAMES_KEPT = 3
FRAME_SIDE_PX = 512
STOP_S = 5.0
JOURNAL = ["journalctl", "-u", "photometryd", "-n", "500", "-o", "short-iso-precise", "--no-pager"]
DMESG = ["dmesg", "--ctime"]
NAME = re.compile(r"(?P<utc>\d{8}T\d{6}Z)-(?P<code>[a-z0-9_.]+)\.tar\.gz")
OTHERWISE_NOTED = ("camera", "engine", "store", "watchdog", "api")
"""Parts whose faults reach the list of faults by themselves."""


@dataclass(frozen=True)
class Sources:
    """Where a snapshot's content is from. The functions of the daemon's own state are called on the event loop."""

    parts: Callable[[], list[PartStatus]]
    status: Callable[[], dict[str, Any]]
    preview: Callable[[], Awaitable[Preview | None]]
    metrics_text: Callable[[], bytes]
    """Any thread."""
    log_tail: Callable[[], list[dict[str, Any]]]
    """Any thread."""
    secrets: Callable[[], list[str]]
    """Blocking."""
    note: Callable[[str, str, str], None]
    """Puts (code, detail, remedy) on the list of faults."""


def snapshot_files(state_dir: Path) -> list[Path]:
    """The snapshots there are, newest first; none when the folder cannot be read. Blocking."""
    try:
        return sorted((path for path in _folder(state_dir).iterdir() if NAME.fullmatch(path.name)), reverse=True)
    except OSError:
        return []


class Snapshots:
    """Watches the parts and writes snapshots. `on_written()` counts them."""

    def __init__(
        self, state_dir: Path, min_free_mb: int, sources: Sources, on_written: Callable[[], None] = lambda: None
    ) -> None:
        self._state_dir = state_dir
        self._min_free_mb = min_free_mb
        self._sources = sources
        self._on_written = on_written
        self._lock = threading.Lock()
        self._pending: dict[str, None] = {}
        self._last_s: dict[str, float] = {}
        self._troubles: dict[str, str] = {}
        self._frames: list[Preview] = []
        self._next_frame_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    def fault(self, code: str) -> None:
        """A fault was noted: have a snapshot taken, unless there is a recent one of its kind. Cheap, any thread."""
        now_s = time.monotonic()
        with self._lock:
            last_s = self._last_s.get(code)
            if last_s is None or now_s - last_s >= EVERY_S:
                self._pending[code] = None

    async def start(self) -> None:
        """Begin to watch."""
        if self._task is None:
            await asyncio.to_thread(self._recall)
            self._task = asyncio.create_task(self._watch(), name="snapshots")

    async def stop(self) -> None:
        """End; idempotent. A snapshot under way gets `STOP_S`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, STOP_S)

    def _recall(self) -> None:
        """Kinds that an earlier start took: a service that restarts each minute must not fill the folder."""
        now_s, wall_s = time.monotonic(), wall_time_s()
        for path in snapshot_files(self._state_dir):
            match = NAME.fullmatch(path.name)
            assert match is not None
            with suppress(ValueError):
                taken = datetime.strptime(match["utc"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                age_s = wall_s - taken.timestamp()  # the only clock that outlives a boot; a wrong one costs a snapshot
                if 0 <= age_s < EVERY_S:
                    self._last_s.setdefault(match["code"], now_s - age_s)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                self._look()
                await self._remember_frame()
                await self._begin()
            except Exception:
                log.exception("watching for faults")

    def _look(self) -> None:
        """Faults that only the status shows reach the list of faults."""
        for part in self._sources.parts():
            code = part.reason if part.state in ("failed", "degraded") else ""
            if code and code != self._troubles.get(part.name) and part.name not in OTHERWISE_NOTED:
                self._sources.note(code, part.detail, part.remedy)
            self._troubles[part.name] = code

    async def _remember_frame(self) -> None:
        if time.monotonic() < self._next_frame_s or self._troubles.get("camera") or self._troubles.get("engine"):
            return
        self._next_frame_s = time.monotonic() + FRAME_PERIOD_S
        await self._add_frame()

    async def _add_frame(self) -> None:
        preview = await self._sources.preview()
        if preview is not None:
            self._frames = [*self._frames, await asyncio.to_thread(_cropped, preview)][-FRAMES_KEPT:]

    async def _begin(self) -> None:
        """Start the thread for the kind that has waited longest; the others wait until it is done, however long."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            code = next(iter(self._pending), None)
            if code is None:
                return
            del self._pending[code]
            self._last_s[code] = time.monotonic()
        await self._add_frame()
        status = self._sources.status()
        self._thread = threading.Thread(
            target=self._write, args=(code, status, list(self._frames)), name="snapshot", daemon=True
        )
        self._thread.start()

    def _write(self, code: str, status: dict[str, Any], frames: list[Preview]) -> None:
        try:
            free_mb = shutil.disk_usage(self._state_dir).free / 1e6
            if free_mb < self._min_free_mb + SPARE_MB:
                log.info("no snapshot of %s: only %.0f MB are free", code, free_mb)
                return
            folder = _folder(self._state_dir)
            folder.mkdir(mode=0o750, exist_ok=True)
            out = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{re.sub('[^a-z0-9_.]', '_', code)}.tar.gz"
            self._collect(code, status, frames).write(out, "photometryd-snapshot")
            _prune(self._state_dir)
        except (OSError, StoreError) as error:
            log.warning("no snapshot of %s: %s", code, error)
            return
        self._on_written()
        log.info("snapshot of %s: %s", code, out)

    def _collect(self, code: str, status: dict[str, Any], frames: list[Preview]) -> Archive:
        archive = Archive(self._sources.secrets(), MAX_BYTES)
        archive.add("fault.json", "what it was taken for", lambda: {"code": code, "monotonic_s": time.monotonic()})
        archive.add("status.json", "what the daemon said of itself", lambda: status)
        archive.add("metrics.txt", "counters", self._sources.metrics_text)
        archive.add("usb.txt", "USB devices as the kernel sees them", evidence.usb_devices)
        archive.add("dmesg.txt", "kernel messages: USB resets, disk faults, memory", lambda: evidence.kernel_log(DMESG))
        archive.add("log.jsonl", "the daemon's newest log lines", self._sources.log_tail)
        archive.add("machine.json", "memory, load, disk, clocks", lambda: evidence.machine(self._state_dir))
        archive.add("frames.npz", "the last frames' middle, raw: numpy.load", lambda: _packed(frames))
        archive.add("journal.txt", "what systemd recorded of the service", lambda: evidence.output(JOURNAL))
        return archive


def _folder(state_dir: Path) -> Path:
    return state_dir / "snapshots"


def _prune(state_dir: Path) -> None:
    """Remove the oldest beyond `KEPT` or `KEPT_BYTES`."""
    total = 0
    for number, path in enumerate(snapshot_files(state_dir)):
        total += path.stat().st_size
        if number >= KEPT or (number > 0 and total > KEPT_BYTES):
            path.unlink(missing_ok=True)


def _cropped(preview: Preview) -> Preview:
    """The middle of the frame, at most `FRAME_SIDE_PX` a side."""
    height, width = preview.image.shape
    y0, x0 = max(0, height - FRAME_SIDE_PX) // 2, max(0, width - FRAME_SIDE_PX) // 2
    middle = preview.image[y0 : y0 + FRAME_SIDE_PX, x0 : x0 + FRAME_SIDE_PX].copy()
    return Preview(middle, preview.bit_depth, preview.frame, preview.host_t_s, preview.drift_y_px, preview.drift_x_px)


def _packed(frames: list[Preview]) -> bytes:
    """``image_0``..: (h, w) uint16 DN, oldest first; `frame`, `host_t_s` and `age_s` of each. Raises `ValueError`."""
    if not frames:
        raise ValueError("the engine has sent none")
    buffer = io.BytesIO()
    arrays = {f"image_{number}": one.image for number, one in enumerate(frames)}
    arrays |= {name: np.array([getattr(one, name) for one in frames]) for name in ("frame", "host_t_s", "bit_depth")}
    arrays["age_s"] = time.monotonic() - arrays["host_t_s"]
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
