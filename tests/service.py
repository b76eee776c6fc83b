"""A real daemon in a process of its own, for benchmarks and whole-daemon tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any


class Service:
    """photometryd with these settings (TOML text, `@STATE@` and `@WORLD@` replaced); a context manager."""

    def __init__(self, folder: Path, toml: str, *, environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.config = folder / "photometryd.toml"
        self._toml = toml
        self._environ = environ or {}
        self._process: subprocess.Popen[str] | None = None
        self._notify: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self.url = ""
        self.ready_s = float("nan")
        self.lines: list[str] = []
        self.statuses: list[str] = []

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 90.0) -> None:
        """Start and wait for READY=1 on a notification socket of our own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines.clear()  # another start's, with another address
        toml = self._toml.replace("@STATE@", str(self.state_dir)).replace("@WORLD@", str(self.folder / "world"))
        self.config.write_text(toml)
        notify_path = self.folder / "notify"
        notify_path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(notify_path))
        self._notify.settimeout(0.2)
        environ = {**os.environ, **self._environ, "NOTIFY_SOCKET": str(notify_path)}
        started = time.monotonic()
        ready = threading.Event()
        self._threads = [
            threading.Thread(target=self._hear, args=(self._notify, ready), daemon=True),
            threading.Thread(target=self._read, daemon=True),
        ]
        self._threads[0].start()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "--config", str(self.config)],
            stderr=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        self._threads[1].start()
        while time.monotonic() - started < timeout_s:
            if self._process.poll() is not None:
                raise RuntimeError("the daemon ended:\n" + "\n".join(self.lines[-20:]))
            if ready.wait(0.02):
                self.ready_s = time.monotonic() - started
                self._find_url()
                return
        raise RuntimeError("the daemon was not ready in time:\n" + "\n".join(self.lines[-20:]))

    def stop(self, timeout_s: float = 40.0) -> int:
        """SIGTERM, then wait; returns the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._release()
        return code

    def kill(self) -> None:
        """SIGKILL: a power cut as far as the process can tell."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._release()

    def get(self, path: str, timeout_s: float = 10.0) -> Any:
        """The JSON of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=timeout_s) as reply:
            return json.load(reply)

    def post(self, path: str, body: Any = None, timeout_s: float = 30.0) -> Any:
        """The JSON of a POST."""
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method="POST")
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return json.load(reply)

    def patch(self, path: str, body: Any, timeout_s: float = 30.0) -> Any:
        """The JSON of a PATCH."""
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method="PATCH")
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:
            return json.load(reply)

    def finished(self, answer: Any, timeout_s: float = 60.0) -> Any:
        """The result of an answer that may be an operation under way."""
        deadline = time.monotonic() + timeout_s
        while "operation_id" in answer:
            if answer["state"] == "done":
                return answer["result"]
            assert answer["state"] in ("pending", "running") and time.monotonic() < deadline, answer
            time.sleep(0.1)
            answer = self.get(answer["url"])
        return answer

    def wait_for(self, condition: Any, timeout_s: float = 30.0) -> Any:
        """Poll `condition(status)` until it gives something true; that, or an error with the last status."""
        deadline = time.monotonic() + timeout_s
        status = None
        while time.monotonic() < deadline:
            status = self.get("/api/v1/status")
            if found := condition(status):
                return found
            time.sleep(0.1)
        raise AssertionError(f"not within {timeout_s:g} s; the last status was {json.dumps(status)[:3000]}")

    def _hear(self, listener: socket.socket, ready: threading.Event) -> None:
        """What systemd would hear; a full socket would block the sender."""
        while True:
            try:
                news = listener.recv(65536).decode()
            except TimeoutError:
                continue
            except OSError:
                return
            self.statuses.extend(line for line in news.splitlines() if line.startswith("STATUS="))
            if "READY=1" in news:
                ready.set()

    def _read(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip())

    def _find_url(self) -> None:
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if "the API answers at " in line:
                    self.url = line.split("the API answers at ")[1].split()[0].rstrip("/")
                    return
            time.sleep(0.02)
        raise RuntimeError("the daemon did not say where it answers")

    def _release(self) -> None:
        self._process = None
        if self._notify is not None:
            self._notify.close()
            self._notify = None
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5.0)


LIVE = """
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
[camera.options]
world = "@WORLD@"
frame_rate_hz = 100
[potentiostat]
driver = "twin"
[potentiostat.options]
world = "@WORLD@"
speed = 1
particles = 300
[cell]
capacity_mah = 0.5
[cell.limits]
min_voltage_v = 2.5
max_voltage_v = 4.4
max_current_ma = 10
"""
"""The reference load: 960 x 600, 12 bits, 100 fps, 300 particles, real time."""

SMALL = """
@AUTOSTART@
[store]
state_dir = "@STATE@"
[api]
port = 0
[camera]
driver = "twin"
[camera.options]
world = "@WORLD@"
frame_rate_hz = 40
[potentiostat]
driver = "twin"
[potentiostat.options]
world = "@WORLD@"
speed = 60
seed = 5
particles = 40
height_px = 300
width_px = 400
cracks_per_h = 2.0
capacity_mah = 1.0
[cell]
capacity_mah = 1.0
[cell.limits]
min_voltage_v = 2.8
max_voltage_v = 4.4
max_current_ma = 10
"""
"""A small, fast instrument for tests; replace `@AUTOSTART@` by a setting or nothing."""
