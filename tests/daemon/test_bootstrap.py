"""How the parts are wired to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.bootstrap import Instrument
from daemon.config import LoadedSettings, Settings, StoreSettings
from daemon.diagnostics.logs import LogService
from daemon.events import Event, EventKind
from daemon.service.notify import Notifier


def test_a_step_of_the_wall_clock_is_recorded_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedSettings(Settings(store=StoreSettings(state_dir=tmp_path)), {}, None)
    instrument = Instrument(loaded, LogService("info", tmp_path), Notifier({}))
    recorded: list[Event] = []
    monkeypatch.setattr(instrument.runs, "record", recorded.append)
    instrument.clock_watch._on_step(-2.5)
    assert [(event.kind, event.magnitude) for event in recorded] == [(EventKind.CLOCK_STEP, -2.5)]
    assert b"instrument_clock_steps_total 1.0" in instrument.metrics.text()
    assert "-2.500 s" in caplog.text
