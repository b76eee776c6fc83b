"""Checks of the board, on trees like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daemon.diagnostics.checks.base import CheckResult
from daemon.diagnostics.checks.clock_rate import ClockRate
from daemon.diagnostics.checks.clock_steps import ClockSteps
from daemon.diagnostics.checks.disk_wear import DiskWear
from daemon.diagnostics.checks.sysfs import number, text
from daemon.diagnostics.checks.temperature import Temperature
from daemon.diagnostics.checks.throttling import Throttling


def tree(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def disk(root: Path, files: dict[str, Any], part: str = "mmcblk0p2") -> CheckResult:
    """The wear of a disk whose partition holds `root`, with these files of the kernel."""
    sys = tree(root / "sys", {f"block/mmcblk0/{part}/partition": 2, **files})
    state = root.stat().st_dev
    link = sys / "dev" / "block" / f"{os.major(state)}:{os.minor(state)}"
    link.parent.mkdir(parents=True)
    link.symlink_to(sys / "block" / "mmcblk0" / part)
    return DiskWear(root, sys).run()


@pytest.mark.parametrize(
    ("life", "reserve", "outcome", "words"),
    [
        ("0x01 0x01", "0x01", "pass", "0 to 10 % of its life used, reserve normal"),
        ("0x02 0x08", "0x01", "pass", "70 to 80 %"),
        ("0x09 0x01", "0x01", "warn", "80 to 90 %"),
        ("0x0b 0x01", "0x01", "fail", "beyond its life"),
        ("0x01 0x01", "0x02", "warn", "reserve 80 % used"),
        ("0x01 0x01", "0x03", "fail", "reserve 90 % used"),
        ("0x00 0x00", "0x00", "pass", "tells nothing of its wear"),
        ("junk", "junk", "pass", "tells nothing of its wear"),
    ],
)
def test_flash(tmp_path: Path, life: str, reserve: str, outcome: str, words: str) -> None:
    device = "block/mmcblk0/device"
    result = disk(tmp_path, {f"{device}/life_time": life, f"{device}/pre_eol_info": reserve})
    assert result.outcome == outcome
    assert words in result.measured


def test_errors_of_disk_and_file_system(tmp_path: Path) -> None:
    result = disk(
        tmp_path,
        {
            "block/mmcblk0/device/ioerr_cnt": "0x65",
            "fs/ext4/mmcblk0p2/errors_count": 0,
            "fs/ext4/mmcblk0p2/lifetime_write_kbytes": 90_000_000,
        },
    )
    assert result.outcome == "warn"
    assert result.measured == "mmcblk0: 101 failed requests, 0 ext4 errors, 90 GB written in its life"


def test_a_damaged_file_system_fails(tmp_path: Path) -> None:
    assert disk(tmp_path, {"fs/ext4/mmcblk0p2/errors_count": 3}).outcome == "fail"


def test_results_in_memory_wear_nothing(tmp_path: Path) -> None:
    assert DiskWear(tmp_path, tmp_path / "sys").run().measured.startswith("not applicable")
    assert DiskWear(tmp_path / "absent", tmp_path).run().outcome == "fail"


@pytest.mark.parametrize(("hot_mc", "outcome"), [(60_000, "pass"), (101_000, "warn"), (110_000, "fail")])
def test_temperature_by_the_zones_own_limit(tmp_path: Path, hot_mc: int, outcome: str) -> None:
    zone = "thermal/thermal_zone0"
    files = {
        f"{zone}/temp": hot_mc, f"{zone}/type": "cpu", f"{zone}/trip_point_0_type": "passive",
        f"{zone}/trip_point_0_temp": 80_000, f"{zone}/trip_point_1_type": "critical",
        f"{zone}/trip_point_1_temp": 110_000, "thermal/thermal_zone1/temp": -274_000,
    }  # fmt: skip
    result = Temperature(tree(tmp_path, files)).run()
    assert (result.outcome, result.measured) == (outcome, f"{hot_mc / 1000:.1f} °C (cpu, of 1 sensors)")


def test_the_sensor_nearest_to_its_limit_is_told(tmp_path: Path) -> None:
    files = {
        "thermal/thermal_zone0/temp": 50_000, "hwmon/hwmon1/name": "nvme", "hwmon/hwmon1/temp1_input": 79_000,
        "hwmon/hwmon1/temp1_label": "Composite", "hwmon/hwmon1/temp1_crit": 84_000, "hwmon/hwmon1/temp2_input": "x",
    }  # fmt: skip
    result = Temperature(tree(tmp_path, files)).run()
    assert (result.outcome, result.measured) == ("warn", "79.0 °C (nvme Composite, of 2 sensors)")
    assert Temperature(tmp_path / "none").run().measured.startswith("not applicable")


BOARD = "devices/platform/soc/soc:firmware/get_throttled"


@pytest.mark.parametrize(
    ("bits", "outcome", "words"),
    [
        ("0", "pass", "never"),
        ("50000", "warn", "now: no; since the board was started: the supply is below 4.63 V, throttled"),
        ("50005", "fail", "now: the supply is below 4.63 V, throttled"),
        ("80008", "warn", "now: at the soft temperature limit"),
    ],
)
def test_throttling_of_a_raspberry_pi(tmp_path: Path, bits: str, outcome: str, words: str) -> None:
    result = Throttling(tree(tmp_path, {BOARD: bits})).run()
    assert result.outcome == outcome
    assert words in result.measured


def test_throttling_by_the_processors_counters(tmp_path: Path) -> None:
    cpu = "devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    assert Throttling(tmp_path).run().measured.startswith("not applicable")
    assert Throttling(tree(tmp_path, {cpu.format(0): 0})).run().outcome == "pass"
    result = Throttling(tree(tmp_path, {cpu.format(1): 7})).run()
    assert (result.outcome, result.measured) == ("warn", "7 times since the machine was started")


@pytest.mark.parametrize(("ppm", "outcome"), [(-199.0, "pass"), (201.0, "warn")])
def test_clock_rate(ppm: float, outcome: str) -> None:
    result = ClockRate(lambda: 1e5 * (1 + 1e-6 * ppm), lambda: 1e5).run()
    assert (result.outcome, result.measured) == (outcome, f"{ppm:+.1f} ppm")
    assert ClockRate(lambda: 30.0, lambda: 30.0).run().measured.startswith("not applicable")
    assert ClockRate().run().limit


def test_clock_steps() -> None:
    assert ClockSteps(lambda: (0, 0.0)).run().outcome == "pass"
    result = ClockSteps(lambda: (2, -3600.5)).run()
    assert (result.outcome, result.measured) == ("warn", "2 steps, -3600.500 s in all")


def test_files_of_the_kernel_that_cannot_be_read(tmp_path: Path) -> None:
    assert text(tmp_path) is None
    assert number(tmp_path / "absent") is None
    (tmp_path / "x").write_bytes(b"\xff\n")
    assert number(tmp_path / "x") is None
