"""Snapshots: one a kind of fault, bounded, without secrets, never in the way."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from daemon.diagnostics import snapshot as module
from daemon.diagnostics.snapshot import Snapshots, Sources, snapshot_files
from daemon.parts import PartStatus, Preview

SECRET = "s3cr3t-battery-staple"


class Instrument:
    """What a snapshot is taken of."""

    def __init__(self) -> None:
        self.parts: list[PartStatus] = []
        self.noted: list[str] = []
        self.previews = 0
        self.metrics: Callable[[], bytes] = lambda: b"instrument_x 1\n"

    async def preview(self) -> Preview | None:
        self.previews += 1
        image = np.arange(600 * 700, dtype=np.uint16).reshape(600, 700)
        return Preview(image, 12, self.previews, time.monotonic(), 0.0, 0.0)

    def sources(self) -> Sources:
        return Sources(
            parts=lambda: self.parts,
            status=lambda: {"parts": [vars(part) for part in self.parts], "token": SECRET},
            preview=self.preview,
            metrics_text=lambda: self.metrics(),  # noqa: PLW0108  tests replace it
            log_tail=lambda: [{"message": f"opened with {SECRET}"}],
            secrets=lambda: [SECRET],
            note=lambda code, detail, remedy: self.noted.append(code),
        )


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.01)
    monkeypatch.setattr(module, "JOURNAL", ["echo", f"secret={SECRET}"])
    monkeypatch.setattr(module, "DMESG", ["echo", "usb 1-1: reset"])


@asynccontextmanager
async def watching(state_dir: Path, instrument: Instrument, **more: Any) -> AsyncIterator[Snapshots]:
    snapshots = Snapshots(state_dir, more.pop("min_free_mb", 0), instrument.sources(), **more)
    await snapshots.start()
    try:
        yield snapshots
    finally:
        await snapshots.stop()


async def listed(state_dir: Path) -> list[Path]:
    return await asyncio.to_thread(snapshot_files, state_dir)


async def written(state_dir: Path, count: int = 1) -> list[Path]:
    async with asyncio.timeout(20):
        while len(found := await listed(state_dir)) < count:
            await asyncio.sleep(0.02)
    return found


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]
    return {name.removeprefix("photometryd-snapshot/"): raw for name, raw in files.items()}


async def test_a_part_that_fails_is_noted_and_photographed(tmp_path: Path) -> None:
    instrument = Instrument()
    counted: list[None] = []
    async with watching(tmp_path, instrument, on_written=lambda: counted.append(None)) as snapshots:
        await asyncio.sleep(0.05)
        assert await listed(tmp_path) == []
        instrument.parts = [PartStatus("cell", "failed", "cell.stalled", "no sample for 2.0 s", "Check it.")]
        async with asyncio.timeout(10):
            while not instrument.noted:
                await asyncio.sleep(0.01)
        snapshots.fault(instrument.noted[0])  # as the list of faults does
        (path,) = await written(tmp_path)
    assert instrument.noted == ["cell.stalled"]
    assert counted == [None]
    assert path.name.endswith("-cell.stalled.tar.gz")
    files = await asyncio.to_thread(content, path)
    assert set(files) - {"usb.txt"} == {
        "manifest.json", "fault.json", "status.json", "metrics.txt", "dmesg.txt", "log.jsonl", "machine.json",
        "frames.npz", "journal.txt",
    }  # fmt: skip
    assert json.loads(files["fault.json"])["code"] == "cell.stalled"
    assert files["dmesg.txt"] == b"usb 1-1: reset\n"
    for name, raw in files.items():
        assert SECRET.encode() not in raw, name
    frames = np.load(io.BytesIO(files["frames.npz"]))
    assert frames["image_0"].shape == (512, 512)
    assert frames["image_0"][0, 0] == 44 * 700 + 94
    assert frames["frame"].tolist() == [1, 2]
    assert (frames["age_s"] < 20).all()


async def test_the_same_fault_is_not_taken_again_also_by_the_next_start(tmp_path: Path) -> None:
    instrument = Instrument()
    async with watching(tmp_path, instrument) as snapshots:
        snapshots.fault("engine.died")
        await written(tmp_path)
        snapshots.fault("engine.died")
        snapshots.fault("camera.stalled")
        assert len(await written(tmp_path, 2)) == 2
    async with watching(tmp_path, instrument) as snapshots:
        snapshots.fault("engine.died")
        snapshots.fault("camera.stalled")
        snapshots.fault("store.disk_full")
        await written(tmp_path, 3)
    assert sorted(path.name.split("-", 1)[1] for path in await listed(tmp_path)) == [
        "camera.stalled.tar.gz", "engine.died.tar.gz", "store.disk_full.tar.gz",
    ]  # fmt: skip


def named(state_dir: Path, age: timedelta, code: str) -> Path:
    folder = state_dir / "snapshots"
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC) - age:%Y%m%dT%H%M%SZ}-{code}.tar.gz"
    path.write_bytes(b"x" * 100)
    return path


async def test_an_old_snapshot_and_one_of_the_future_keep_no_new_one_away(tmp_path: Path) -> None:
    await asyncio.to_thread(named, tmp_path, timedelta(hours=7), "engine.died")
    await asyncio.to_thread(named, tmp_path, timedelta(hours=-7), "camera.stalled")
    async with watching(tmp_path, Instrument()) as snapshots:
        snapshots.fault("engine.died")
        snapshots.fault("camera.stalled")
        assert len(await written(tmp_path, 4)) == 4


@pytest.mark.parametrize(("kept", "kept_bytes", "left"), [(3, 10**9, 3), (50, 10_000, 1)])
async def test_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, kept_bytes: int, left: int
) -> None:
    monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    old = [named(tmp_path, timedelta(days=1 + n), f"old.{n}") for n in range(5)]
    async with watching(tmp_path, Instrument()) as snapshots:
        snapshots.fault("engine.died")
        async with asyncio.timeout(20):
            while len(await listed(tmp_path)) != left:
                await asyncio.sleep(0.02)
    found = await listed(tmp_path)
    assert found[0].name.endswith("engine.died.tar.gz")
    assert found[1:] == old[: left - 1]


async def test_a_low_disk_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=240e6, total=1e9))
    with caplog.at_level(logging.INFO):
        async with watching(tmp_path, Instrument(), min_free_mb=200) as snapshots:
            snapshots.fault("store.disk_full")
            async with asyncio.timeout(10):
                while "only 240 MB are free" not in caplog.text:
                    await asyncio.sleep(0.02)
    assert await listed(tmp_path) == []


async def test_a_disk_that_fails_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "snapshots").touch()
    async with watching(tmp_path, Instrument()) as snapshots:
        snapshots.fault("engine.died")
        async with asyncio.timeout(10):
            while "no snapshot of engine.died" not in caplog.text:
                await asyncio.sleep(0.02)


async def test_evidence_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    release, instrument = threading.Event(), Instrument()

    def hang() -> bytes:
        release.wait(20)
        return b""

    instrument.metrics = hang
    async with watching(tmp_path, instrument) as snapshots:
        snapshots.fault("engine.died")
        snapshots.fault("camera.stalled")
        async with asyncio.timeout(10):
            while snapshots._thread is None:
                await asyncio.sleep(0.01)
        looked = instrument.noted
        instrument.parts = [PartStatus("cell", "degraded", "cell.limit", "4.21 V")]
        async with asyncio.timeout(10):
            while not looked:
                await asyncio.sleep(0.01)  # the watch goes on
        assert [thread.name for thread in threading.enumerate()].count("snapshot") == 1
        release.set()
        await written(tmp_path, 2)


async def test_faults_that_the_list_knows_by_itself_are_not_noted_twice(tmp_path: Path) -> None:
    instrument = Instrument()
    instrument.parts = [
        PartStatus("store", "failed", "store.disk_full", "no room"),
        PartStatus("watchdog", "degraded", "service.stalled", "store made no progress"),
        PartStatus("camera", "starting"),
    ]
    async with watching(tmp_path, instrument):
        await asyncio.sleep(0.1)
        instrument.parts.append(PartStatus("cell", "failed", "cell.unplugged", "gone"))
        await asyncio.sleep(0.1)
    assert instrument.noted == ["cell.unplugged"]


async def test_without_frames_the_manifest_says_so(tmp_path: Path) -> None:
    instrument = Instrument()

    async def none() -> None:
        return None

    instrument.preview = none  # type: ignore[method-assign, assignment]
    async with watching(tmp_path, instrument) as snapshots:
        snapshots.fault("engine.died")
        (path,) = await written(tmp_path)
    manifest = json.loads((await asyncio.to_thread(content, path))["manifest.json"])
    missing = {entry["file"]: entry["reason"] for entry in manifest["missing"]}
    assert missing["frames.npz"] == "ValueError: the engine has sent none"


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    assert snapshot_files(tmp_path) == []
