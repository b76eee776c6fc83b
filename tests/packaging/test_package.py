"""The Debian package on a clean Debian 12 under a real systemd: `make package-test`, as root.

One machine goes through a package's whole life, in the order of the tests: each needs the ones before it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.container import booted, reason_against
from tests.packaging.instrument import CACHE, READY_S, ROOT, Instrument, clean_debian, wait_for

VARIABLE = "PHOTOMETRYD_PACKAGE_TEST"
"""Environment variable: set where minutes are to be spent on this."""
INSTALL_S = 1800.0  # compiles some hundred kernels; an idle desktop takes one minute
STATE = "var/lib/photometryd"
RECIPE = 'name = "kept"\nreference_frames = 10\n'
EDITED = """
[camera.options]
frame_rate_hz = 10
[potentiostat.options]
particles = 40
height_px = 300
width_px = 400
"""
"""A smaller simulated instrument, as settings that an engineer added."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(VARIABLE not in os.environ, reason="builds and installs for minutes: make package-test"),
    pytest.mark.skipif(bool(reason_against()), reason=reason_against() or ""),
]


class Packaged(Instrument):
    """A machine that a package comes to."""

    files: set[str]
    """What was there before."""
    run_id: str
    """Of the run that must outlive everything."""

    def install(self, deb: Path) -> str:
        shutil.copy(deb, self.root / "root" / deb.name)
        try:
            return self.run("dpkg", "--install", f"/root/{deb.name}", timeout_s=INSTALL_S)
        finally:
            (self.root / "root" / deb.name).unlink()

    def list_files(self) -> set[str]:
        """What is on the disk, but logs, and dpkg's and systemd's notes of any package's coming and going."""
        places = [place for place in self.root.iterdir() if place.name not in ("proc", "sys", "dev", "run", "tmp")]
        found = {str(path.relative_to(self.root)) for place in places for path in (place, *place.rglob("*"))}
        notes = ("var/log/", "var/lib/dpkg/", "var/lib/systemd/", "var/tmp/", "var/cache/ldconfig/", "etc/.pwd.lock")
        return {name for name in found if not name.startswith(notes)}


def build(version: str) -> Path:
    """The package of this tree, as this version."""
    command = [str(ROOT / "packaging/debian-package"), "--version", version, "--out", str(CACHE / "tested")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.strip().splitlines()[-1])
    return ROOT / done.stdout.strip().splitlines()[-1].split(": ")[0]


@pytest.fixture(scope="module")
def packages() -> tuple[Path, Path]:
    """Two versions of the same tree."""
    return build("1.0.0"), build("1.0.1")


@pytest.fixture(scope="module")
def instrument(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Packaged]:
    """A clean Debian, booted."""
    instrument = Packaged(tmp_path_factory.mktemp("machine") / "root")
    instrument.unpack(clean_debian())
    try:
        with booted(instrument):
            instrument.files = instrument.list_files()
            yield instrument
    finally:
        instrument.scrap()


def test_lintian_finds_no_errors(packages: tuple[Path, Path]) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    command = ["lintian", "--fail-on", "error", "--allow-root", str(packages[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout


def test_installing_gives_a_running_service(instrument: Packaged, packages: tuple[Path, Path]) -> None:
    started_s = time.monotonic()
    told = instrument.install(packages[0])
    print(f"installed in {time.monotonic() - started_s:.0f} s")
    assert "compiling its kernels" in told
    instrument.await_ready()
    assert instrument.current() == "1.0.0"
    assert instrument.show("UnitFileState") == "enabled"
    assert (instrument.root / "etc/photometryd/photometryd.toml").stat().st_mode & 0o777 == 0o640
    assert "photometryctl" in instrument.run("photometryctl", "--help")
    kernels = list((instrument.root / "var/cache/photometryd/kernels").rglob("*.nbc"))
    assert kernels
    born_s = max(kernel.stat().st_mtime for kernel in kernels)
    instrument.run("systemctl", "restart", "photometryd")
    instrument.await_ready()
    kernels = list((instrument.root / "var/cache/photometryd/kernels").rglob("*.nbc"))
    assert max(kernel.stat().st_mtime for kernel in kernels) == born_s, "the service compiled kernels again"


def test_the_sandbox_is_on(instrument: Packaged) -> None:
    instrument.check_sandbox()


def test_a_hanging_daemon_is_killed_and_started_again(instrument: Packaged) -> None:
    instrument.check_watchdog()


def test_an_upgrade_waits_for_the_end_of_a_run(instrument: Packaged, packages: tuple[Path, Path]) -> None:
    settings = instrument.root / "etc/photometryd/photometryd.toml"
    settings.write_text(settings.read_text() + EDITED)
    instrument.run("systemctl", "restart", "photometryd")
    instrument.await_ready()
    (instrument.root / "root/recipe.toml").write_text(RECIPE)
    instrument.ctl("start", "--no-wait", "/root/recipe.toml")
    (instrument.root / "root/recipe.toml").unlink()
    run = wait_for(lambda: (run := instrument.status()["run"]) and run["state"] == "running" and run, READY_S, "a run")
    instrument.run_id = run["run_id"]
    pid = instrument.show("MainPID")
    told = instrument.install(packages[1])
    assert "update.measuring" in told
    assert "photometryd-update switch 1.0.1 --restart" in told
    assert (instrument.current(), instrument.show("MainPID")) == ("1.0.0", pid)
    assert instrument.status()["run"]["run_id"] == run["run_id"]


def test_the_new_version_keeps_settings_and_data(instrument: Packaged) -> None:
    instrument.ctl("stop")
    wait_for(lambda: instrument.status()["run"] is None, READY_S, "the end of the run")
    instrument.run("photometryd-update", "switch", "1.0.1", "--restart", timeout_s=READY_S)
    instrument.await_ready()
    assert instrument.current() == "1.0.1"
    assert "1.0.1" in instrument.ctl("version")
    assert EDITED in (instrument.root / "etc/photometryd/photometryd.toml").read_text()
    assert instrument.run_id in instrument.ctl("runs", "--json")


def test_there_is_a_way_back(instrument: Packaged) -> None:
    instrument.run("photometryd-update", "rollback", "--restart", timeout_s=READY_S)
    instrument.await_ready()
    assert instrument.current() == "1.0.0"
    assert instrument.run_id in instrument.ctl("runs", "--json")


def test_removing_keeps_settings_and_data(instrument: Packaged) -> None:
    instrument.run("dpkg", "--remove", "photometryd", timeout_s=READY_S)
    assert not (instrument.root / "opt/photometryd").exists()
    assert not (instrument.root / "var/cache/photometryd").exists()
    assert (instrument.root / STATE / "runs" / f"{instrument.run_id}.db").exists()
    assert EDITED in (instrument.root / "etc/photometryd/photometryd.toml").read_text()
    assert instrument.run("systemctl", "is-active", "photometryd", fails=True).strip() == "inactive"


def test_installed_again_it_goes_on(instrument: Packaged, packages: tuple[Path, Path]) -> None:
    instrument.install(packages[1])
    instrument.await_ready()
    assert instrument.current() == "1.0.1"
    assert instrument.run_id in instrument.ctl("runs", "--json")


def test_a_purge_keeps_nothing_but_what_was_measured(instrument: Packaged) -> None:
    told = instrument.run("dpkg", "--purge", "photometryd", timeout_s=READY_S)
    assert "measured data was kept in /var/lib/photometryd" in told
    left = instrument.list_files() - instrument.files
    assert [name for name in left if not f"{name}/".startswith(f"{STATE}/")] == []
    assert (instrument.root / STATE / "runs" / f"{instrument.run_id}.db").exists()


def test_a_purge_without_measured_data_leaves_nothing(instrument: Packaged, packages: tuple[Path, Path]) -> None:
    """The catalogue alone is no data. The package is gone: its script is run by hand."""
    instrument.run("rm", "-r", f"/{STATE}/runs")
    assert (instrument.root / STATE / "instrument.db").exists()
    subprocess.run(["dpkg-deb", "--control", str(packages[1]), str(instrument.root / "root/control")], check=True)
    instrument.run("sh", "/root/control/postrm", "purge")
    instrument.run("rm", "-r", "/root/control")
    assert instrument.list_files() - instrument.files == set()
