"""How worn is the disk that holds the results, as far as it says?"""

from __future__ import annotations

import os
from pathlib import Path

from daemon.diagnostics.checks.base import SEVERITY, Check, CheckResult, Outcome
from daemon.diagnostics.checks.sysfs import number, text

SYS = Path("/sys")
WORN, END_OF_LIFE = 9, 11
"""Steps of the eMMC registers DEVICE_LIFE_TIME_EST (JEDEC JESD84-B51, EXT_CSD 268 and 269): n means 10 (n - 1) to
10 n % of the life used, 11 beyond it."""
PRE_END: dict[int, Outcome] = {1: "pass", 2: "warn", 3: "fail"}
"""PRE_EOL_INFO, EXT_CSD 267: of the reserved blocks fewer than 80 % used, 80 %, 90 %."""


class DiskWear(Check):
    """Life used and errors of the disk below the state directory, as far as the kernel's files tell (eMMC, SCSI, ext4).

    NVMe disks and most cards tell nothing there: that is a result that says so, not a fault.
    """

    name = "disk_wear"
    remedy = "Back the state directory up now and replace the disk; ext4 errors: check the file system (fsck) first."
    surroundings = True

    def __init__(self, state_dir: Path, sys: Path = SYS) -> None:
        self._state_dir = state_dir
        self._sys = sys

    def run(self) -> CheckResult:
        limit = f"less than {10 * (WORN - 1)} % of its life used, no errors"
        try:
            number_of_disk = self._state_dir.stat().st_dev
        except OSError as error:
            return self.result("fail", f"{error.strerror} ({self._state_dir})", limit)
        link = self._sys / "dev" / "block" / f"{os.major(number_of_disk)}:{os.minor(number_of_disk)}"
        if not link.exists():
            return self.not_applicable("the state directory is on no disk of this machine (memory, network, overlay)")
        part = link.resolve()
        disk = part.parent if (part / "partition").exists() else part
        findings = [*_flash(disk / "device"), *_scsi(disk / "device"), *_ext4(self._sys / "fs" / "ext4" / part.name)]
        if not findings:
            return self.result("pass", f"{disk.name} tells nothing of its wear", limit)
        worst = max((outcome for outcome, _ in findings), key=SEVERITY.__getitem__)
        return self.result(worst, f"{disk.name}: " + ", ".join(sentence for _, sentence in findings), limit)


def _flash(device: Path) -> list[tuple[Outcome, str]]:
    found: list[tuple[Outcome, str]] = []
    steps = [int(word, 0) for word in (text(device / "life_time") or "").split() if _is_number(word)]
    if any(steps):
        step = max(steps)
        outcome: Outcome = "pass" if step < WORN else "warn" if step < END_OF_LIFE else "fail"
        told = f"{10 * (step - 1)} to {10 * step} % of its life used" if step < END_OF_LIFE else "beyond its life"
        found.append((outcome, told))
    reserve = number(device / "pre_eol_info", 0)
    if reserve in PRE_END:
        found.append((PRE_END[reserve], {1: "reserve normal", 2: "reserve 80 % used", 3: "reserve 90 % used"}[reserve]))
    return found


def _scsi(device: Path) -> list[tuple[Outcome, str]]:
    """SCSI and SATA disks count requests that ended in an error since the machine was started."""
    errors = number(device / "ioerr_cnt", 0)
    # a few are refused commands of the disk's own set-up, no damage
    return [] if errors is None else [("warn" if errors > 100 else "pass", f"{errors} failed requests")]


def _ext4(directory: Path) -> list[tuple[Outcome, str]]:
    found: list[tuple[Outcome, str]] = []
    errors, written = number(directory / "errors_count"), number(directory / "lifetime_write_kbytes")
    if errors is not None:
        found.append(("fail" if errors else "pass", f"{errors} ext4 errors"))
    if written is not None:
        found.append(("pass", f"{written / 1e6:.0f} GB written in its life"))
    return found


def _is_number(word: str) -> bool:
    try:
        int(word, 0)
    except ValueError:
        return False
    return True
