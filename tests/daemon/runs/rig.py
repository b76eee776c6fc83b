"""An engine without a process, a cell without a device, and a run manager around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from daemon.config import Settings
from daemon.engine.link import Message
from daemon.engine.measures import MaskSet, MeasureBatch
from daemon.engine.pipeline import Pipeline
from daemon.engine.transfer import Transfer, TransferSums
from daemon.engine.warm import warm_kernels
from daemon.engine.wire import masks_order, measure_order
from daemon.errors import InstrumentError
from daemon.events import Event
from daemon.runs.manager import RunManager
from daemon.store.paths import StateLayout
from daemon.store.writer import StoreWriter
from hw.camera.contract import CameraInfo, FrameStamp, PixelFormat
from hw.potentiostat.contract import PotentiostatInfo
from tests.scenes import PoissonScene

WAIT_S = 10.0


def scene() -> PoissonScene:
    """A small scene whose particles are found at once."""
    return PoissonScene(seed=8, height=160, width=200, particles=8)


async def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """Poll without blocking until `condition()` gives something true."""
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


class FakeEngine:
    """What the run manager needs of the engine's host. `show(n)` measures n more frames of the scene."""

    def __init__(self, pictures: PoissonScene) -> None:
        warm_kernels()  # not on the event loop
        self.info = CameraInfo(
            "fake", "1", pictures.height, pictures.width, PixelFormat.MONO12, 100.0, gain_e_per_dn=8.0,
            read_noise_e=7.0, dark_dn=64.0, clock_id="bench",
        )  # fmt: skip
        self._mean_e, self._scene = pictures.mean_e(), pictures
        self.orders: list[Message] = []
        self.captured: list[int] = []
        self.problem: InstrumentError | None = None
        self.refusal: InstrumentError | None = None
        """What an order of other masks is answered with."""
        self.hold = False
        """Let captures wait for ever."""
        self.pipeline: Pipeline | None = None
        self.shown = 0
        self.on_batch: Callable[[MeasureBatch], None] = lambda batch: None
        self.on_camera: Callable[[str, dict[str, Any]], None] = lambda kind, fields: None
        self.on_restart: Callable[[], None] = lambda: None
        self.on_calibration: Any = None
        self.calibrating = False

    async def camera(self, timeout_s: float) -> CameraInfo:
        if self.problem is not None:
            raise self.problem
        return self.info

    async def capture(self, frames: int, timeout_s: float) -> Transfer:
        self.captured.append(frames)
        if self.hold:
            await asyncio.sleep(3600)
        sums = TransferSums(self._mean_e.shape)
        for _ in range(frames):
            sums.add(self._scene.expose(self._mean_e))
        return sums.result()

    async def request(self, message: Message, timeout_s: float = 1.0) -> Message:
        self.orders.append(message)
        if message.kind == "measure":
            self.pipeline = Pipeline(**measure_order(message))
        elif message.kind == "masks":
            if self.refusal is not None:
                raise self.refusal
            assert self.pipeline is not None
            self._deliver()
            self.pipeline = self.pipeline.with_masks(**masks_order(message))
            return Message("reply", {"from_frame": self.pipeline.next_frame})
        elif message.kind == "finish" and self.pipeline is not None:
            self.pipeline = None
        return Message("reply")

    def show(self, frames: int) -> None:
        """Measure and deliver a batch."""
        assert self.pipeline is not None
        for _ in range(frames):
            stamp = FrameStamp(self.shown, 50.0 + self.shown / 100, time.monotonic())
            self.pipeline.add(self._scene.expose(self._mean_e), stamp)
            self.shown += 1
        self._deliver()

    def _deliver(self) -> None:
        batch = self.pipeline.take() if self.pipeline is not None else None
        if batch is not None:
            self.on_batch(batch)


class FakeCell:
    """Remembers what it was told."""

    state = "off"

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.problem: InstrumentError | None = None

    async def start_experiment(self, spec: Any) -> None:
        self.told.append(spec)
        if self.problem is not None:
            raise self.problem

    async def off(self, reason: str = "operator") -> None:
        self.told.append(f"off: {reason}")


class Rig:
    """A manager over an engine, a store in `folder` and the events that were published."""

    def __init__(self, folder: Path, engine: Any, /, **settings: Any) -> None:
        self.settings = Settings(**settings)
        self.layout = StateLayout(folder)
        self.engine, self.cell = engine, FakeCell()
        self.cell_info: PotentiostatInfo | None = None
        self.events: list[Event] = []
        self.writer = StoreWriter(self.layout.catalogue, commit_interval_s=0.05)
        self.runs = RunManager(
            self.settings, self.layout, engine, self.cell, lambda: self.cell_info, self.writer, self.events.extend
        )  # type: ignore[arg-type]


@asynccontextmanager
async def rig(folder: Path, engine: Any, /, **settings: Any) -> AsyncIterator[Rig]:
    """Everything started, and taken down in reverse."""
    one = Rig(folder, engine, **settings)
    await asyncio.to_thread(one.layout.prepare)
    await asyncio.to_thread(one.writer.start)
    try:
        await one.runs.open()
        yield one
    finally:
        await one.runs.close()
        await asyncio.to_thread(one.writer.stop, WAIT_S)


def masks(count: int = 2) -> MaskSet:
    """Square particles in a row."""
    labels = np.zeros((20, 20 * count), np.int32)
    for i in range(count):
        labels[5:15, 20 * i + 5 : 20 * i + 15] = i + 1
    table = {"area_px": np.full(count, 100.0), "solidity": np.full(count, np.nan)}
    centre = 9.5 + 20.0 * np.arange(count)
    return MaskSet(labels, np.arange(11, 11 + count), np.full(count, 9.5), centre, table, 1.5, 96.0)
