from __future__ import annotations

import pytest

import daemon.cell.device as device_module
import daemon.cell.watch as watch_module


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between a watch's iterations, nor between attempts to switch off."""
    monkeypatch.setattr(watch_module, "MIN_PERIOD_S", 0.0)
    monkeypatch.setattr(device_module, "OFF_PAUSE_S", 0.0)
