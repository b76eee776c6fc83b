"""The units and the switch between versions as shipped, under a real systemd on a clean Debian 12, in a minute.

The versions are thin: they run this checkout and its environment by Debian's Python, with the kernels that are compiled
already. What takes minutes (building, installing, removing) is in `test_package.py`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.container import booted, reason_against
from tests.packaging.instrument import READY_S, ROOT, Instrument, clean_debian, wait_for

HIDDEN = ("/home", "/root", "/run/user", "/tmp")
"""Where the unit's sandbox lets nobody look."""
SITE = Path(sys.prefix).resolve() / "lib/python3.11/site-packages"
SETTINGS = """
[camera.options]
frame_rate_hz = 10
[potentiostat.options]
particles = 40
height_px = 300
width_px = 400
"""


def reason() -> str | None:
    """Why thin versions cannot run here; None when they can."""
    if sys.version_info[:2] != (3, 11):
        return "the environment is not of Python 3.11, Debian 12's"
    for place in (ROOT, SITE):
        if str(place).startswith(HIDDEN):
            return f"{place} is where the unit's sandbox hides it"
    return reason_against()


pytestmark = [pytest.mark.timeout(1200), pytest.mark.skipif(bool(reason()), reason=reason() or "")]


def put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def add_version(root: Path, version: str) -> None:
    """Commands that run this checkout."""
    commands = root / "opt/photometryd/versions" / version / "bin"
    commands.mkdir(parents=True)
    for name, module in (("photometryd", "daemon"), ("photometryctl", "daemon.ctl")):
        environ = f"PYTHONPATH={ROOT}:{SITE} PYTHONDONTWRITEBYTECODE=1"
        (commands / name).write_text(f'#!/bin/sh\n{environ} exec /usr/bin/python3.11 -m {module} "$@"\n')
        (commands / name).chmod(0o755)


def furnish(root: Path) -> None:
    """What the package would bring, at its places."""
    for unit in (ROOT / "systemd").glob("*.service"):
        put(unit, root / "lib/systemd/system" / unit.name)
    put(ROOT / "systemd/photometryd.sysusers", root / "usr/lib/sysusers.d/photometryd.conf")
    put(ROOT / "systemd/photometryd.tmpfiles", root / "usr/lib/tmpfiles.d/photometryd.conf")
    put(ROOT / "packaging/photometryd-update", root / "usr/sbin/photometryd-update")
    put(ROOT / "packaging/photometryd.toml", root / "etc/photometryd/photometryd.toml")
    settings = root / "etc/photometryd/photometryd.toml"
    settings.write_text(settings.read_text() + SETTINGS)
    (root / "usr/bin/photometryctl").symlink_to("/opt/photometryd/current/bin/photometryctl")
    kernels = root / "var/cache/photometryd/kernels"
    shutil.copytree(os.environ.get("NUMBA_CACHE_DIR", ROOT / ".cache/numba"), kernels)
    for version in ("1.0.0", "1.0.1"):
        add_version(root, version)


@pytest.fixture(scope="module")
def instrument(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instrument]:
    """A machine whose service was started with version 1.0.0, and that has 1.0.1 too."""
    try:
        base = clean_debian()
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"no Debian could be had for a container; it takes a package mirror: {error}")
    instrument = Instrument(tmp_path_factory.mktemp("machine") / "root", seen=(ROOT, SITE))
    instrument.unpack(base)
    try:
        furnish(instrument.root)
        with booted(instrument):
            instrument.run("chown", "--recursive", "photometryd:photometryd", "/var/cache/photometryd")
            for version in ("1.0.1", "1.0.0"):
                instrument.run("photometryd-update", "seal", version)
            instrument.run("photometryd-update", "switch", "1.0.0")
            instrument.run("systemctl", "enable", "--now", "photometryd", timeout_s=READY_S)
            yield instrument
    finally:
        instrument.scrap()


def test_it_starts_and_tells_systemd_when_it_is_ready(instrument: Instrument) -> None:
    instrument.await_ready()
    assert instrument.show("Type") == "notify"
    assert instrument.show("StatusText")


def test_the_sandbox_is_on(instrument: Instrument) -> None:
    instrument.check_sandbox()


def test_a_hanging_daemon_is_killed_and_started_again(instrument: Instrument) -> None:
    """With a shorter watchdog than shipped; the shipped one in `test_package.py`."""
    drop_in = instrument.root / "etc/systemd/system/photometryd.service.d/short.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nWatchdogSec=10\nTimeoutAbortSec=2\n")
    instrument.run("systemctl", "daemon-reload")
    instrument.run("systemctl", "restart", "photometryd", timeout_s=READY_S)
    instrument.await_ready()
    instrument.check_watchdog()


def test_a_version_that_does_not_start_is_left_for_the_one_before(instrument: Instrument) -> None:
    instrument.run("photometryd-update", "confirm")
    broken = instrument.root / "opt/photometryd/versions/1.0.1/bin/photometryd"
    works = broken.read_text()
    broken.write_text("#!/bin/sh\nexit 3\n")
    instrument.run("photometryd-update", "switch", "1.0.1")
    instrument.run("systemctl", "--no-block", "restart", "photometryd")
    wait_for(lambda: instrument.current() == "1.0.0", READY_S, "the way back")
    instrument.await_ready()
    broken.write_text(works)


def test_switching_and_rolling_back(instrument: Instrument) -> None:
    instrument.run("photometryd-update", "switch", "1.0.1", "--restart", timeout_s=READY_S)
    instrument.await_ready()
    assert instrument.current() == "1.0.1"
    instrument.run("photometryd-update", "rollback", "--restart", timeout_s=READY_S)
    instrument.await_ready()
    assert instrument.current() == "1.0.0"
