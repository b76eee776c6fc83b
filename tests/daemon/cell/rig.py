"""A watch over a cell, stepped by hand."""

from __future__ import annotations

from collections.abc import Callable

from daemon.cell.device import Device, Permits
from daemon.cell.journal import Aftermath, Report
from daemon.cell.plan import plan_experiment
from daemon.cell.watch import CellWatch
from daemon.config import CellSettings
from daemon.errors import CellReason, PotentiostatError
from daemon.events import EventKind
from daemon.recipe import CellLimits, ExperimentSpec
from hw.potentiostat.contract import Potentiostat
from tests.daemon.cell.fake import Bench, FakePotentiostat

LIMITS = CellLimits(min_voltage_v=2.5, max_voltage_v=4.3, max_current_ma=5.0)
CELL = CellSettings(capacity_mah=1.0, limits=LIMITS)
UNPLUGGED = PotentiostatError(CellReason.UNPLUGGED, "gone")
REFUSED = PotentiostatError(CellReason.REFUSED, "no")


class Rig:
    """A watch over a fake, driven by hand in this thread."""

    def __init__(
        self,
        bench: Bench | None = None,
        driver: Callable[[Bench], Potentiostat] = FakePotentiostat,
        deadline_s: float = 0.4,
    ) -> None:
        self.bench = bench or Bench()
        self.permits = Permits()
        self.device = Device(lambda: driver(self.bench), self.permits)
        self.watch = CellWatch(self.device, self.permits, LIMITS, deadline_s)
        self.reports: list[Report] = []

    def open(self, aftermath: Aftermath | None = None) -> Rig:
        self.watch.open(aftermath)
        self.report()
        return self

    def report(self) -> Report:
        self.reports.append(self.watch.take_report())
        return self.reports[-1]

    def iterate(self, timeout_s: float = 0.02) -> Report:
        self.watch.iterate(timeout_s)
        return self.report()

    def begin(self, *steps: str, **limits: float) -> Rig:
        self.iterate()
        wanted = CellLimits(**limits) if limits else None
        plan = plan_experiment(ExperimentSpec(steps=list(steps), limits=wanted), CELL, self.bench.info)
        self.watch.begin(plan, self.permits.issue())
        self.report()
        return self

    def until(self, state: str, most: int = 300) -> Report:
        for _ in range(most):
            if self.iterate().snapshot.state == state:
                return self.reports[-1]
        raise AssertionError(f"never {state}: {self.reports[-1].snapshot}")

    @property
    def events(self) -> list[tuple[EventKind, str]]:
        return [(event.kind, event.detail) for report in self.reports for event in report.events]
