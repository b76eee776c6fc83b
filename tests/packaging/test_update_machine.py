"""Any commands in any order: what runs is whole, and what was proven is never lost."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.packaging.updating import Home, cut

VERSIONS = st.sampled_from(["1", "2", "3", "4"])


class Updates(RuleBasedStateMachine):
    """An operator, a crashing service and kills; `proven` is what the operator knows to work."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.home = Home(self.root)
        self.proven: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def first(self) -> None:
        for version in ("1", "2", "3"):
            self.home.install(version)
        for command in (("switch", "1"), ("starting",), ("confirm",)):
            self.home.good(*command)
        self.proven.add("1")

    def told(self) -> dict[str, Any]:
        return self.home.status()

    @rule(version=VERSIONS, complete=st.booleans())
    def install(self, version: str, complete: bool) -> None:
        if version not in self.home.place.installed():
            self.home.install(version, complete=complete)

    @rule(version=VERSIONS)
    def switch(self, version: str) -> None:
        before, complete = self.told(), self.home.place.is_complete(version)
        code, _, err = self.home.run("switch", version)
        assert (code == 0) == complete, err
        after = self.told()
        assert after["current"] == (version if complete else before["current"])
        back_to_good = not before["confirmed"] and before["previous"] == version
        if complete and version != before["current"] and not back_to_good:
            assert (after["confirmed"], after["starts"]) == (False, 0)
            assert after["previous"] in (before["current"], before["previous"])

    @rule()
    def confirm(self) -> None:
        self.home.good("confirm")
        assert self.told()["confirmed"]
        self.proven.add(self.told()["current"])

    @rule()
    def rollback(self) -> None:
        before = self.told()
        code, _, _ = self.home.run("rollback")
        assert self.told()["current"] == (before["current"] if code else before["previous"])

    @rule(keep=st.integers(1, 4))
    def prune(self, keep: int) -> None:
        before = set(self.home.place.installed())
        half = {version for version in before if not self.home.place.is_complete(version)}
        self.home.good("prune", "--keep", str(keep))
        told = self.told()
        after = set(self.home.place.installed())
        assert after >= (half | {told["current"], told["previous"], told["last_started"]}) & before
        assert len(after - half) >= min(keep, len(before - half))

    @rule()
    def start(self) -> None:
        self.home.good("starting")
        assert self.told()["last_started"] == self.told()["current"]

    @rule()
    def keeps_failing(self) -> None:
        """Whatever does not start is left once, for what was proven; that is never left."""
        before = self.told()
        visited = [before["current"]]
        for _ in range(10):
            self.home.good("starting")
            visited.append(self.told()["current"])
        moves = sum(one != other for one, other in itertools.pairwise(visited))
        if before["confirmed"]:
            assert moves == 0
        else:
            assert moves == (1 if before["previous"] is not None else 0)
            assert visited[-1] == (before["previous"] or before["current"])

    @rule()
    def systemd_gives_up(self) -> None:
        before = self.told()
        code, _, _ = self.home.run("failed-start")
        if before["confirmed"]:
            assert self.told()["current"] == before["current"]
        assert code == 0 or self.told()["current"] == before["current"]

    @precondition(lambda self: self.home.place.installed())
    @rule(
        step=st.integers(0, 40),
        command=st.sampled_from(["switch 2", "switch 3", "confirm", "rollback", "starting", "failed-start", "prune"]),
    )
    def killed(self, step: int, command: str) -> None:
        before = self.told()["current"]
        cut(self.home, step, *command.split(), refusals=True)
        if command in ("confirm", "prune"):
            assert self.told()["current"] == before

    @invariant()
    def what_runs_is_whole(self) -> None:
        if (self.home.home / "current").is_symlink():
            told = self.told()
            assert told["current"] == self.home.current
            assert told["previous"] != told["current"]
            if not told["confirmed"] and told["previous"] is not None:
                assert told["previous"] in self.proven
                assert self.home.place.is_complete(told["previous"])


def test_any_commands_in_any_order() -> None:
    run_state_machine_as_test(Updates, settings=settings(max_examples=15, stateful_step_count=15, deadline=None))
