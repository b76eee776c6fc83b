import asyncio
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

import daemon.__main__ as module
from daemon.config import LoadedSettings, Settings
from daemon.errors import StoreError, StoreReason

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(monkeypatch):
    """What `main` would have run, without running it."""
    loaded = []
    monkeypatch.setattr(module, "run", lambda settings: loaded.append(settings) or 0)
    monkeypatch.setattr(module, "DEFAULT_PATH", Path("/nowhere/photometryd.toml"))
    for name in os.environ:
        if name.startswith("PHOTOMETRYD_"):
            monkeypatch.delenv(name)
    return loaded


def invoke(*arguments):
    return CliRunner().invoke(module.main, [str(argument) for argument in arguments])


def test_the_file_named_is_used(served, tmp_path):
    path = tmp_path / "p.toml"
    path.write_text("[api]\nport = 1234\n")
    assert invoke("--config", path).exit_code == 0
    (loaded,) = served
    assert loaded.settings.api.port == 1234 and loaded.path == path


def test_the_usual_file_is_used_when_it_is_there(served, tmp_path, monkeypatch):
    path = tmp_path / "usual.toml"
    monkeypatch.setattr(module, "DEFAULT_PATH", path)
    assert invoke().exit_code == 0
    path.write_text("[api]\nport = 1234\n")
    assert invoke().exit_code == 0
    assert invoke("--simulate").exit_code == 0  # which needs no file
    without, usual, simulated = served
    assert without.path is None and usual.settings.api.port == 1234 and simulated.path is None
    assert simulated.origins["store.state_dir"] == "simulate"


@pytest.mark.parametrize(
    ("text", "words"), [("[api]\nprot = 1\n", "api.port"), ("[api\n", "line 1"), (None, "gone.toml")]
)
def test_what_cannot_be_used_is_a_sentence(served, tmp_path, text, words):
    path = tmp_path / "gone.toml"
    if text is not None:
        path.write_text(text)
    done = invoke("--config", path)
    assert done.exit_code == 1 and served == []
    assert done.stderr.startswith("photometryd: ") and words in done.stderr


def test_help_and_version(served):
    assert "--simulate" in invoke("--help").stdout
    assert version("photometryd") in invoke("--version").stdout
    assert served == []


class FakeInstrument:
    """Starts as `on_start` says; counts its stops."""

    stops = 0

    def __init__(self, loaded, logs, notifier):
        self.api = type("Api", (), {"url": "http://127.0.0.1:1"})

    async def start(self):
        await type(self).on_start()

    async def stop(self):
        type(self).stops += 1


class FakeLogs:
    def __init__(self, *_):
        pass

    def start(self):
        pass

    def stop(self):
        pass


@pytest.fixture
def life(monkeypatch):
    """Run the service with an instrument that starts as told; gives (exit code, stops)."""

    def run(on_start):
        FakeInstrument.on_start, FakeInstrument.stops = staticmethod(on_start), 0
        monkeypatch.setattr(module, "Instrument", FakeInstrument)
        monkeypatch.setattr(module, "LogService", FakeLogs)
        monkeypatch.setattr(module.faulthandler, "enable", lambda: None)
        return module.run(LoadedSettings(Settings(), {}, None)), FakeInstrument.stops

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(life, number, capsys):
    async def start():
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), number)

    assert life(start) == (0, 1)
    assert "photometryd is ready: http://127.0.0.1:1" in capsys.readouterr().err


def test_a_signal_during_the_start_ends_it_too(life):
    async def start():
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.sleep(3600)

    assert life(start) == (0, 1)


def test_a_start_that_is_pointless_is_exit_code_1(life, caplog):
    async def start():
        raise StoreError(StoreReason.LOCKED, "process 12 uses '/state'")

    assert life(start) == (1, 1)
    assert "process 12 uses '/state'" in caplog.text and StoreReason.LOCKED.remedy in caplog.text


def test_the_module_is_the_program(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[nonsense]\n")
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "--config", str(path)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and "nonsense" in done.stderr and "Traceback" not in done.stderr
