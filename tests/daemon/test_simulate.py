"""The simulated instrument that `--simulate` configures."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from daemon.cell.experiment import parse_experiment
from daemon.config import check_drivers, load_settings
from daemon.simulate import STEPS, simulated, state_directory


def write(directory: Path, text: str) -> Path:
    path = directory / "photometryd.toml"
    path.write_text(text)
    return path


def test_the_simulated_instrument_is_valid_and_says_so(tmp_path: Path) -> None:
    loaded = load_settings(None, simulate=True, environ={"XDG_STATE_HOME": str(tmp_path)})
    settings = loaded.settings
    assert settings.store.state_dir == tmp_path / "photometryd-simulated"
    assert settings.camera.options["world"] == settings.potentiostat.options["world"]
    assert settings.cell.capacity_mah == settings.potentiostat.options["capacity_mah"]
    assert settings.autostart is not None
    assert loaded.origins["camera.options.world"] == loaded.origins["autostart.experiment.steps"] == "simulate"
    check_drivers(settings)


def test_another_driver_drops_the_simulated_options(tmp_path: Path) -> None:
    path = write(tmp_path, "[camera]\ndriver = 'replay'\n[camera.options]\npath = '/movie.h5'\n")
    loaded = load_settings(path, simulate=True, environ={"XDG_STATE_HOME": str(tmp_path)})
    assert loaded.settings.camera.options == {"path": "/movie.h5"}
    assert "camera.options.world" not in loaded.origins


def test_an_own_recipe_replaces_the_simulated_one(tmp_path: Path) -> None:
    path = write(tmp_path, "[autostart]\nname = 'mine'\n")
    loaded = load_settings(path, simulate=True, environ={"XDG_STATE_HOME": str(tmp_path)})
    assert loaded.settings.autostart is not None
    assert loaded.settings.autostart.experiment is None
    assert loaded.origins["autostart.name"] == "file"
    assert loaded.origins["autostart.experiment.steps"] == "default"


def test_the_simulated_state_lies_where_one_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert state_directory({"HOME": str(tmp_path)}) == tmp_path / ".local/state/photometryd-simulated"
    blocked = tmp_path / "file"
    blocked.touch()
    fallback = state_directory({"XDG_STATE_HOME": str(blocked)})
    assert fallback == tmp_path / f"photometryd-simulated-{os.getuid()}"
    assert simulated({"XDG_STATE_HOME": str(blocked)})["store"]["state_dir"] == str(fallback)


def test_the_experiment_charges_and_discharges_with_rests_between() -> None:
    kinds = [step.kind for step in parse_experiment(STEPS)]
    assert kinds[0] == "rest"
    assert kinds.count("charge") >= 5
    assert kinds.count("discharge") >= 2
    assert all("rest" in pair for pair in itertools.pairwise(kinds))
