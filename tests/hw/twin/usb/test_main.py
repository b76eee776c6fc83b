from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hw.twin.usb import umockdev
from hw.twin.usb.__main__ import main
from hw.twin.usb.client import BusClient, BusError
from hw.twin.usb.umockdev import reason_against

needs_umockdev = pytest.mark.skipif(reason_against() is not None, reason=str(reason_against()))
BUS = [sys.executable, "-m", "hw.twin.usb"]


@pytest.mark.parametrize(("options", "code", "said"), [([], 1, "{}\n"), (["--or-skip"], 0, "skipped: {}\n")])
def test_where_there_can_be_no_bus_it_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    monkeypatch.setattr(umockdev, "PRELOAD", "libnowhere.so.0")
    monkeypatch.setattr(sys, "argv", ["hw.twin.usb", *options, "--", "false"])
    assert main() == code
    reason = "libnowhere.so.0 cannot be loaded: on Debian, as root, apt-get install umockdev"
    assert capsys.readouterr().err == said.format(reason)


@needs_umockdev
@pytest.mark.parametrize(("command", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)])
def test_the_exit_code_is_the_commands(command: str, code: int) -> None:
    assert subprocess.run([*BUS, "--", "sh", "-c", command], check=False).returncode == code


@needs_umockdev
def test_devices_can_be_plugged_in_from_elsewhere_and_all_goes_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    show = (
        'while ! cat /sys/bus/usb/devices/1-1/product 2>/dev/null; do sleep 0.05; done; echo "$UMOCKDEV_DIR"; read end'
    )
    with subprocess.Popen(
        [*BUS, "--bus", str(path), "--", "sh", "-c", show], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bus:
        client = _client(path)
        client.plug("one", "loopback")
        assert bus.stdout is not None
        assert bus.stdout.readline() == "Emulated loopback\n"
        root = Path(bus.stdout.readline().strip())
        assert root.is_dir()
        assert bus.communicate("end\n", timeout=10) is not None
    with pytest.raises(BusError, match="the bus is gone"):
        client.kinds()
    client.close()
    assert not root.exists() and not path.exists() and bus.returncode == 0


@needs_umockdev
def test_a_bus_that_is_told_to_end_takes_its_files_away(tmp_path: Path) -> None:
    path = tmp_path / "b.sock"
    command = [*BUS, "--bus", str(path), "--", "sh", "-c", 'echo "$UMOCKDEV_DIR"; exec sleep 60']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bus:
        assert bus.stdout is not None
        root = Path(bus.stdout.readline().strip())
        os.kill(bus.pid, signal.SIGTERM)
        assert bus.wait(10) == 128 + signal.SIGTERM
    assert not root.exists()


def _client(path: Path) -> BusClient:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            return BusClient(str(path))
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(path)
