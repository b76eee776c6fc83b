"""A sample of the campaign for every parser, and proof that the campaign finds what there is to find."""

from __future__ import annotations

import random

import pytest

from hw.errors import UsbError, UsbReason
from tests.fuzz.campaign import Tally, campaign, feed
from tests.fuzz.mutations import CHANGES, mutated
from tests.fuzz.targets import TARGETS, Target

INPUTS = 400


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_good_inputs_are_taken(target: Target) -> None:
    tally = Tally()
    for data in target.seeds():
        feed(target, data, tally)
    assert tally.findings == [] and tally.taken > 0


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_inputs_are_taken_or_refused_with_a_reason(target: Target) -> None:
    tally = campaign(target, int(INPUTS * min(target.share, 1.0)), seed=7)
    assert tally.findings == []
    assert tally.taken + tally.refused > 0


def test_a_parser_that_raises_anything_else_is_found() -> None:
    def fragile(data: bytes) -> None:
        if len(data) < 4:
            raise UsbError(UsbReason.PROTOCOL, "too short")
        if data[3] > 0x7F:
            raise KeyError(data[3])

    tally = campaign(Target("fragile", fragile, lambda: [b"abcdef"]), 2000, seed=1)
    assert tally.findings and tally.refused and tally.taken
    assert all(data[3] > 0x7F and "KeyError" in trace for data, trace in tally.findings)


def test_the_same_seed_feeds_the_same_inputs() -> None:
    seeds = [b"one good input", b"another"]
    one, other = random.Random(3), random.Random(3)
    assert [mutated(seeds, one) for _ in range(200)] == [mutated(seeds, other) for _ in range(200)]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_change_bears_an_empty_input(change) -> None:
    data = bytearray()
    change(data, random.Random(1), [b""])
    assert len(data) < 10_000
