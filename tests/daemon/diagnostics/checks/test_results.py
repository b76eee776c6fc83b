"""Checks of what is measured and kept."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest

from daemon.diagnostics.checks import calibration_age, noise
from daemon.diagnostics.checks.calibration_age import DarkAge, FlatAge
from daemon.diagnostics.checks.noise import Noise, noise_ratio
from daemon.diagnostics.checks.store_health import StoreHealth
from daemon.errors import StoreError, StoreReason
from daemon.parts import PartStatus, RunSummary
from daemon.store.writer import StoreStats

WELL = StoreStats(0, 10, 0, 10, 100, 0, 50, 0, 0, 0.004, 9, 9, 0.4, 1.0, 0.0)
READY = PartStatus("store", "ready")


def test_a_store_that_keeps_up() -> None:
    result = StoreHealth(lambda: WELL, lambda: READY).run()
    assert result.outcome == "pass"
    assert result.measured == "last commit 4.0 ms, 0 of 50 failed, 0.4 s behind, 0 frames refused, no full check yet"


def test_the_last_full_check_is_told() -> None:
    done = {"outcome": "done", "detail": "checked 3 files", "utc": "2026-01-02T03:04:05+00:00", "took_s": 9.0}
    result = StoreHealth(lambda: WELL, lambda: READY, lambda: done).run()
    assert result.outcome == "pass"
    assert result.measured.endswith("full check 2026-01-02T03:04:05+00:00: checked 3 files")
    failed = done | {"outcome": "failed", "detail": "cannot read"}
    assert StoreHealth(lambda: WELL, lambda: READY, lambda: failed).run().outcome == "warn"


@pytest.mark.parametrize(
    "changes", [{"last_commit_took_s": 1.1}, {"failed_commits": 1}, {"lag_s": 2.1}, {"lost_frames": 1}]
)
def test_a_store_that_does_not(changes: dict[str, Any]) -> None:
    assert StoreHealth(lambda: replace(WELL, **changes), lambda: READY).run().outcome == "warn"


def test_a_store_that_has_stopped() -> None:
    part = PartStatus("store", "failed", "store.disk_full", "no room")
    result = StoreHealth(lambda: WELL, lambda: part).run()
    assert (result.outcome, result.measured.startswith("no room; ")) == ("fail", True)


class Stored:
    """Stands for a reader of run or catalogue."""

    found: Any = None

    def __init__(self, path: Path) -> None:
        if isinstance(self.found, Exception):
            raise self.found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing is open."""

    def time_range(self) -> Any:
        return None if self.found is None else (0.0, 10.0)

    def frame_count(self) -> int:
        return 100

    def particle_columns(self, columns: Any, indices: Any, from_s: float) -> Any:
        assert from_s == 4.0  # 60 frames of 0.1 s
        return {}, self.found

    def instrument_calibration(self, kind: str) -> Any:
        return None if self.found is None else (np.zeros(1), {"made_utc": self.found})


def scattered(factor: float, frames: int = 400, particles: int = 30) -> dict[str, np.ndarray]:
    """Contrast that scatters `factor` times as much as its sigma says, with a step and some unknown values."""
    rng = np.random.default_rng(7)
    sigma = rng.uniform(0.001, 0.01, particles)
    drift = 0.05 * np.arange(frames)[:, None]  # many times the noise from frame to frame
    contrast = 0.2 + drift + factor * sigma * rng.standard_normal((frames, particles))
    contrast[frames // 2 :, 3] += 0.5
    contrast[2, 4:8] = np.nan
    return {"contrast": contrast.astype("f4"), "contrast_sigma": np.tile(sigma, (frames, 1)).astype("f4")}


def run_noise(monkeypatch: pytest.MonkeyPatch, found: Any, state: str = "running") -> Any:
    monkeypatch.setattr(noise, "RunReader", type("Reader", (Stored,), {"found": found}))
    summary = RunSummary("r", "r", state, "", None, Path("/r.db"), {})  # type: ignore[arg-type]
    return Noise(lambda: summary).run()


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "pass"), (2.0, "warn"), (4.0, "fail"), (0.4, "warn")])
def test_noise_against_its_bound(monkeypatch: pytest.MonkeyPatch, factor: float, outcome: str) -> None:
    result = run_noise(monkeypatch, scattered(factor))
    assert result.outcome == outcome
    assert float(result.measured.split()[0]) == pytest.approx(factor, rel=0.07)


def test_noise_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Noise(lambda: None).run().measured == "not applicable: no run is in progress"
    assert run_noise(monkeypatch, None).measured.startswith("not applicable: nothing is stored")
    assert run_noise(monkeypatch, scattered(1.0), "preparing").measured.startswith("not applicable")
    assert "too few" in run_noise(monkeypatch, scattered(1.0, frames=3, particles=5)).measured
    assert run_noise(monkeypatch, StoreError(StoreReason.CORRUPT, "damaged")).outcome == "warn"
    assert run_noise(monkeypatch, sqlite3.OperationalError("locked")).outcome == "warn"


def test_noise_of_nothing() -> None:
    empty = np.empty((1, 0), "f4")
    assert noise_ratio(empty, empty)[1] == 0
    unknown = np.full((5, 3), np.nan)
    assert noise_ratio(unknown, unknown)[1] == 0


@pytest.mark.parametrize(("kind", "days"), [(DarkAge, 30), (FlatAge, 90)])
def test_age_of_calibrations(monkeypatch: pytest.MonkeyPatch, kind: type[DarkAge], days: int) -> None:
    def result(found: Any) -> Any:
        monkeypatch.setattr(calibration_age, "CatalogueReader", type("Reader", (Stored,), {"found": found}))
        return kind(Path("/i.db"), "u3v").run()

    def taken(days_ago: float) -> str:
        return (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()

    assert (result(None).outcome, result(None).measured) == ("warn", "none was taken")
    assert result(taken(days - 1)).outcome == "pass"
    assert result(taken(days + 1)).outcome == "warn"
    assert "in the future" in result(taken(-2)).measured
    assert result("yesterday").outcome == "warn"
    assert result(StoreError(StoreReason.CORRUPT, "the dark frame is damaged")).outcome == "warn"
    assert kind(Path("/i.db"), "twin").run().measured.startswith("not applicable")
