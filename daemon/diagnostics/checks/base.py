"""What every check is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

Outcome = Literal["pass", "warn", "fail"]
SEVERITY: dict[Outcome, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True)
class CheckResult:
    """`measured` and `limit` are short texts with units; `remedy` is empty when the check passed."""

    name: str
    outcome: Outcome
    measured: str
    limit: str
    remedy: str = ""
    surroundings: bool = False
    """It tells of the machine and its surroundings: that it failed says nothing against the software's version."""


class Check(ABC):
    """One question with a measured answer. Constructing is cheap; `run` may block and is called in a thread."""

    name: ClassVar[str]
    remedy: ClassVar[str]
    surroundings: ClassVar[bool] = False
    """As `CheckResult` has it: an update is confirmed in spite of it."""

    @abstractmethod
    def run(self) -> CheckResult:
        """Measure now. What cannot be measured is a result too, not an exception."""

    def result(self, outcome: Outcome, measured: str, limit: str) -> CheckResult:
        """A result of this check, with its remedy unless it passed."""
        remedy = "" if outcome == "pass" else self.remedy
        return CheckResult(self.name, outcome, measured, limit, remedy, self.surroundings)

    def not_applicable(self, why: str) -> CheckResult:
        """Passed because there is nothing to measure here, for a reason that is told."""
        return self.result("pass", f"not applicable: {why}", "none")
