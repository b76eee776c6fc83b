"""The unit, its user, its directories and its devices, checked by systemd's own tools."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.config import load_settings
from tests.packaging.updating import tool

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "photometryd.service"
ROLLBACK = ROOT / "systemd" / "photometryd-rollback.service"
CONFIRM = ROOT / "systemd" / "photometryd-confirm.service"
RULES = ROOT / "systemd" / "70-photometryd.rules"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of systemd's tools. Where there is none the test is skipped, except in CI."""
    if shutil.which(command[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{command[0]} is missing in CI")
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=30)


def settings(unit: Path = UNIT, section: str = "Service") -> dict[str, str]:
    """The keys of a section; of repeated ones the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit)
    return dict(parser[section])


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with their commands where the test can put them."""
    commands = ("opt/photometryd/current/bin/photometryd", "opt/photometryd/current/bin/photometryctl",
                "usr/sbin/photometryd-update")  # fmt: skip
    for name in commands:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for unit in (UNIT, ROLLBACK, CONFIRM):
        text = unit.read_text()
        for name in commands:
            text = text.replace(f"/{name} ", f"{tmp_path}/{name} ")
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", [UNIT, ROLLBACK, CONFIRM], ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(installed: Path, unit: Path) -> None:
    done = run("systemd-analyze", "verify", "--man=no", installed / unit.name)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("unit", "right", "wrong"),
    [(UNIT, "Type=notify", "Type=notfy"), (ROLLBACK, "Type=oneshot", "Type=oneshoot"),
     (CONFIRM, "photometryd-update prove", "photometryd-updat prove")],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)  # fmt: skip
def test_systemd_finds_a_broken_unit(installed: Path, unit: Path, right: str, wrong: str) -> None:
    broken = installed / unit.name
    broken.write_text(broken.read_text().replace(right, wrong))
    assert wrong.rpartition("=")[2].partition(" ")[0] in run("systemd-analyze", "verify", "--man=no", broken).stderr


@pytest.mark.parametrize("unit", [UNIT, ROLLBACK, CONFIRM], ids=lambda unit: unit.stem)
def test_exposure_is_at_most_2(installed: Path, unit: Path) -> None:
    security = ("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager")
    done = run(*security, installed / unit.name)
    assert done.returncode == 0, done.stdout


def test_the_watchdog_outlasts_the_daemons_own_deadline() -> None:
    unit = settings()
    assert unit["Type"] == "notify"
    assert unit["NotifyAccess"] == "main"
    assert float(unit["WatchdogSec"]) >= 2 * load_settings(None, environ={}).settings.service.thread_stall_s


def test_kernels_can_be_compiled_and_kept() -> None:
    text = UNIT.read_text()
    assert not re.search(r"^MemoryDenyWriteExecute", text, re.MULTILINE)
    assert "Environment=NUMBA_CACHE_DIR=%C/photometryd/" in text
    assert settings()["CacheDirectory"] == "photometryd"


def test_the_daemon_may_see_usb_and_nothing_else() -> None:
    unit = settings()
    assert unit["DevicePolicy"] == "closed"
    assert unit["DeviceAllow"] == "char-usb_device rw"
    assert unit.get("PrivateDevices", "no") == "no"
    assert "AF_NETLINK" in unit["RestrictAddressFamilies"]


def test_settings_are_checked_before_the_start() -> None:
    unit = settings()
    assert unit["ExecStartPre"].endswith("photometryctl check-config /etc/photometryd/photometryd.toml")
    assert unit["ExecStart"].endswith("photometryd --config /etc/photometryd/photometryd.toml")
    assert unit["Restart"] == "on-failure"


def test_a_version_that_fails_is_left_before_systemd_gives_up() -> None:
    unit, service = settings(section="Unit"), settings()
    assert unit["OnFailure"] == ROLLBACK.name
    assert service["Restart"] == "on-failure"
    # systemd 252 counts each restart of its own twice; the last start is the one that goes back
    assert int(unit["StartLimitBurst"]) >= 1 + 2 * tool.START_LIMIT
    first = UNIT.read_text().split("ExecStartPre=")[1]
    # before the settings are checked: settings that a new version cannot read count too
    assert first.startswith("-+/usr/sbin/photometryd-update starting\n")
    assert float(service["TimeoutStartSec"]) > tool.LOCK_S + tool.SYSTEMCTL_S


def test_going_back_starts_the_service_only_when_there_was_a_reason() -> None:
    service = settings(ROLLBACK)
    assert service["ExecCondition"] == "/usr/sbin/photometryd-update failed-start"
    assert service["CapabilityBoundingSet"] == ""
    # systemd takes orders only from those with all rights
    orders = re.findall(r"^ExecStart=\+(.*)$", ROLLBACK.read_text(), re.MULTILINE)
    assert orders == [f"/usr/bin/systemctl {verb} {UNIT.name}" for verb in ("reset-failed", "--no-block start")]


def test_the_proof_begins_with_the_service_and_ends_with_it() -> None:
    assert settings(section="Unit")["Wants"] == CONFIRM.name
    unit, service = settings(CONFIRM, "Unit"), settings(CONFIRM)
    assert unit["BindsTo"] == unit["After"] == UNIT.name
    assert service["SupplementaryGroups"] == settings()["Group"]
    assert "--settle-s ${SETTLE_S}" in service["ExecStart"]
    assert service["Environment"].startswith("SETTLE_S=")
    assert service["TimeoutStartSec"] == "infinity"  # the time to settle is a setting


def test_the_packaged_settings_are_valid() -> None:
    loaded = load_settings(ROOT / "packaging/photometryd.toml", environ={})
    assert loaded.settings.api.socket == Path("/run/photometryd/api.sock")
    assert str(loaded.settings.store.state_dir) == f"/var/lib/{settings()['StateDirectory']}"


def test_the_user_can_be_made() -> None:
    done = run("systemd-sysusers", "--dry-run", ROOT / "systemd/photometryd.sysusers")
    assert done.returncode == 0, done.stderr
    assert "user 'photometryd'" in done.stdout + done.stderr or "photometryd" in Path("/etc/passwd").read_text()


def test_the_directories_can_be_made(tmp_path: Path) -> None:
    """Run below a root of its own, with the user it names."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "etc/group").write_text(f"root:x:0:\nphotometryd:x:{os.getgid()}:\n")
    rules = ROOT / "systemd/photometryd.tmpfiles"
    done = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", rules)
    if os.geteuid() == 0:
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "etc/photometryd").stat().st_mode & 0o777 == 0o750
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr


TOKEN = re.compile(r'(?P<key>[A-Z]+)(\{[^}]+\})?(?P<op>==|!=|\+=|=)"[^"]*"')
MATCHES = {"ACTION", "SUBSYSTEM", "ATTR", "ENV"}
ASSIGNMENTS = {"GROUP", "MODE", "ENV", "GOTO", "LABEL"}


def rule_lines() -> list[str]:
    return [line for line in RULES.read_text().splitlines() if line and not line.startswith("#")]


def test_udev_rules_are_well_formed() -> None:
    if shutil.which("udevadm") and "verify" in run("udevadm", "--help").stdout:
        assert run("udevadm", "verify", RULES).returncode == 0
    for line in rule_lines():
        for part in line.split(", "):
            match = TOKEN.fullmatch(part)
            assert match, part
            allowed = MATCHES if match["op"] in ("==", "!=") else ASSIGNMENTS
            assert match["key"] in allowed, part


def test_udev_rules_open_devices_to_the_group_only() -> None:
    granting = [line for line in rule_lines() if "GROUP=" in line]
    assert len(granting) == 3
    for line in granting:
        assert 'GROUP="photometryd", MODE="0660"' in line
    labels = set(re.findall(r'LABEL="(\w+)"', RULES.read_text()))
    assert set(re.findall(r'GOTO="(\w+)"', RULES.read_text())) == labels
    assert any('ENV{ID_USB_INTERFACES}=="*:ef0500:*"' in line for line in granting)
