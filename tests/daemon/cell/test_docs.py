"""`docs/cell.md` names every state and every value, and its examples are what the parser takes and refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from daemon.cell.experiment import parse_step
from daemon.errors import ExperimentError
from daemon.parts import CellState
from tests.daemon.cell.whole_cell import CHARGE, rigged

TEXT = (Path(__file__).parents[3] / "docs" / "cell.md").read_text()
QUOTED = set(re.findall(r"`([^`\n]+)`", TEXT))


def test_states_are_documented() -> None:
    assert set(get_args(CellState)) <= QUOTED


def test_examples_parse() -> None:
    wording = TEXT.split("## The wording of experiments")[1].split("Times:")[0]
    examples = re.findall(r"^\| `([^`]+)`", wording, re.MULTILINE)
    assert len(examples) == 10
    for text in examples:
        parse_step(text)


@pytest.mark.parametrize("part", ["1 W", "4 Ohm"])
def test_refused_units_are_refused(part: str) -> None:
    assert part in QUOTED
    with pytest.raises(ExperimentError):
        parse_step(f"Charge at {part} for 1 hour")


async def test_values_are_documented() -> None:
    async with rigged() as rig:
        await rig.start(CHARGE)
        assert set(rig.cell.status().values) - QUOTED == set()
