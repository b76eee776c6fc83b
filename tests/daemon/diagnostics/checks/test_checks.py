"""Each check passes, warns and fails where it should."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from daemon.diagnostics.checks import clock as clock_module
from daemon.diagnostics.checks import memory as memory_module
from daemon.diagnostics.checks import state_directory as state_directory_module
from daemon.diagnostics.checks.arrivals import CameraFrames, CellSamples
from daemon.diagnostics.checks.clock import Clock
from daemon.diagnostics.checks.free_space import FreeSpace
from daemon.diagnostics.checks.kernel_cache import KernelCache, kernel_cache_directory
from daemon.diagnostics.checks.memory import Memory
from daemon.diagnostics.checks.sqlite_version import SqliteVersion, Version, has_wal_reset_bug
from daemon.diagnostics.checks.state_directory import StateDirectory


def test_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StateDirectory(tmp_path).run().outcome == "pass"
    absent = StateDirectory(tmp_path / "absent").run()
    assert (absent.outcome, absent.measured) == ("fail", f"No such file or directory ({tmp_path}/absent)")
    monkeypatch.setattr(state_directory_module, "SLOW_SYNC_S", 0.0)
    assert StateDirectory(tmp_path).run().outcome == "warn"


def test_state_directory_notices_a_disk_that_cannot_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    assert "Input/output error" in StateDirectory(tmp_path).run().measured
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free_mb", "outcome"), [(199, "fail"), (200, "warn"), (999, "warn"), (1000, "pass")])
def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, outcome: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free_mb * 1_000_000))
    result = FreeSpace(tmp_path, 200).run()
    assert (result.outcome, result.measured) == (outcome, f"{free_mb} MB")


def test_free_space_of_nothing(tmp_path: Path) -> None:
    assert FreeSpace(tmp_path / "absent", 200).run().outcome == "fail"


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 46, 1), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 0), True), ((3, 51, 2), True),
        ((3, 51, 3), False), ((3, 52, 0), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_sqlite_version(version: Version, affected: bool) -> None:
    assert has_wal_reset_bug(version) == affected
    result = SqliteVersion(version).run()
    assert result.outcome == ("warn" if affected else "pass")
    assert ".".join(map(str, version)) in result.measured


def test_kernel_cache(tmp_path: Path) -> None:
    assert KernelCache({"NUMBA_CACHE_DIR": str(tmp_path / "new")}).run().outcome == "pass"
    (tmp_path / "file").touch()
    blocked = KernelCache({"NUMBA_CACHE_DIR": str(tmp_path / "file")}).run()
    assert blocked.outcome == "warn"
    assert "NUMBA_CACHE_DIR" in blocked.remedy
    assert kernel_cache_directory({}).parent.name == "kernels"


def test_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "synchronized"
    for state, outcome in ((0, "pass"), (clock_module.TIME_ERROR, "warn"), (-1, "warn")):
        libc = SimpleNamespace(adjtimex=lambda buffer, state=state: state)
        monkeypatch.setattr("ctypes.CDLL", lambda name, use_errno, libc=libc: libc)
        assert Clock(mark).run().outcome == outcome
    assert Clock(mark).run().measured.startswith("not known")
    mark.touch()
    assert Clock(mark).run().outcome == "pass"


def test_clock_asks_the_kernel() -> None:
    assert clock_module.is_synchronised(Path("/nonexistent")) in (True, False, None)


@pytest.mark.parametrize("kind", [CameraFrames, CellSamples])
def test_arrivals(kind: type[CameraFrames] | type[CellSamples]) -> None:
    assert kind(lambda: None, 2.0).run().measured == "none since the start"
    assert kind(lambda: None, 2.0).run().outcome == "fail"
    assert kind(lambda: 2.0, 2.0).run().outcome == "pass"
    late = kind(lambda: 2.1, 2.0).run()
    assert (late.outcome, late.measured, late.limit) == ("fail", "2.10 s old", "at most 2 s old")


@pytest.mark.parametrize(
    ("used_mb", "free_mb", "outcome"), [(600, 200, "pass"), (601, 200, "warn"), (100, 199, "fail")]
)
def test_memory(monkeypatch: pytest.MonkeyPatch, used_mb: int, free_mb: int, outcome: str) -> None:
    used = {"daemon": 50_000_000, "engine": (used_mb - 50) * 1_000_000}
    monkeypatch.setattr(memory_module, "resident_bytes", lambda processes: used)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free_mb * 1_000_000))
    result = Memory(dict).run()
    assert result.outcome == outcome
    assert f"{used_mb} MB resident (daemon 50 MB" in result.measured


def test_memory_of_this_process() -> None:
    assert "daemon" in Memory(lambda: {"daemon": os.getpid()}).run().measured
