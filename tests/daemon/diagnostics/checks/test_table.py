"""The table of checks."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.diagnostics.checks import table
from daemon.diagnostics.checks.base import Check
from daemon.diagnostics.checks.table import Site, check_classes, machine_checks


def concrete(kind: type[Check]) -> set[type[Check]]:
    own = {kind} if kind.__module__.startswith("daemon.") and "name" in vars(kind) else set()
    return own.union(*(concrete(below) for below in kind.__subclasses__()))


def test_every_check_has_its_row_and_a_name_of_its_own() -> None:
    kinds = [kind for kind, _ in check_classes()]
    assert set(kinds) == concrete(Check)
    names = [kind.name for kind in kinds]
    assert len(set(names)) == len(names)
    for kind in kinds:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.name)
        assert kind.remedy.endswith(".")
        assert (kind.__doc__ or "").strip()


def test_rows_build_what_they_name(tmp_path: Path) -> None:
    built = machine_checks(Site(tmp_path))
    assert [type(check) for check in built] == [kind for kind, _ in table.MACHINE]
