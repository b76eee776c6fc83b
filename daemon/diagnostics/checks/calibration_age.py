"""Are the dark and the flat frame recent?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from daemon.diagnostics.checks.base import Check, CheckResult
from daemon.diagnostics.checks.usb_devices import WANTED
from daemon.errors import StoreError
from daemon.store.reader import CatalogueReader


class CalibrationAge(Check):
    """Age of the newest calibration frame of one kind in the catalogue, for cameras that need one."""

    kind: ClassVar[str]
    days: ClassVar[float]

    def __init__(self, catalogue: Path, camera_driver: str) -> None:
        self._catalogue = catalogue
        self._camera_driver = camera_driver

    def run(self) -> CheckResult:
        limit = f"at most {self.days:g} days old"
        if self._camera_driver not in WANTED:
            return self.not_applicable(f"frames of the driver '{self._camera_driver}' bring what they need")
        try:
            with CatalogueReader(self._catalogue) as catalogue:
                found = catalogue.instrument_calibration(self.kind)
            if found is None:
                return self.result("warn", "none was taken", limit)
            made = datetime.fromisoformat(str(found[1]["made_utc"]))
        except (StoreError, ValueError) as error:
            return self.result("warn", f"not known: {error}", limit)
        age_days = (datetime.now(UTC) - made).total_seconds() / 86_400
        if age_days < 0:
            return self.result("warn", f"taken on {made:%Y-%m-%d}, in the future: the clock is or was wrong", limit)
        return self.result("pass" if age_days <= self.days else "warn", f"{age_days:.1f} days old", limit)


class DarkAge(CalibrationAge):
    """Age of the dark frame: hot pixels come and go within weeks."""

    name = "dark_age"
    kind = "dark"
    days = 30.0
    remedy = "Cover the lens, then take one: POST /api/v1/calibrations/dark."
    surroundings = True


class FlatAge(CalibrationAge):
    """Age of the flat frame: dust and lamp change within months."""

    name = "flat_age"
    kind = "flat"
    days = 90.0
    remedy = "Put an even, empty field into focus, then take one: POST /api/v1/calibrations/flat."
    surroundings = True
