from __future__ import annotations

import pytest

import daemon.cell.cell as cell_module
import daemon.cell.device as device_module
import daemon.cell.watch as watch_module


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between a watch's iterations, nor between attempts to switch off."""
    monkeypatch.setattr(watch_module, "MIN_PERIOD_S", 0.0)
    monkeypatch.setattr(device_module, "OFF_PAUSE_S", 0.0)


@pytest.fixture
def quick_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short deadlines and pauses of a whole cell."""
    monkeypatch.setattr(device_module, "COMMAND_DEADLINE_S", 0.3)
    monkeypatch.setattr(device_module, "OPEN_DEADLINE_S", 0.6)
    monkeypatch.setattr(cell_module, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(cell_module, "BACKOFF_MAX_S", 0.05)
