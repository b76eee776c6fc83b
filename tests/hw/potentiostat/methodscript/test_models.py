from __future__ import annotations

import pytest

from hw.errors import CellReason, PotentiostatError
from hw.potentiostat.methodscript.codes import CODES, sentence
from hw.potentiostat.methodscript.models import REQUIRED_BITS, check_capabilities, identify

ALL_BITS = sum(1 << bit for bit in REQUIRED_BITS)


def test_models_by_their_firmware():
    assert identify("es4_hr1307#Jul 21 2025\nR*", 4.5).name == "EmStat4 HR"
    assert identify("mes4hr1307#", 4.5).max_current_ma == 200.0
    assert identify("nexus11002#", 9.0).window_v == 10.0
    assert identify("es4_lr1307#", 2.9).window_v == 3.0


@pytest.mark.parametrize(
    ("firmware", "says"),
    [
        ("espico1400#", "galvanostat"),
        ("senswb", "galvanostat"),
        ("espbl_01", "boot loader"),
        ("es4_lr1307#", "3 V, less than the cell's 4.5 V"),
        ("mes4lr", "3 V"),
        ("gamry", "not a potentiostat known"),
        ("", "not a potentiostat known"),
    ],
)
def test_unfit_ones_are_refused_with_the_reason(firmware, says):
    with pytest.raises(PotentiostatError) as caught:
        identify(firmware, 4.5)
    assert caught.value.reason is CellReason.UNSUITABLE and says in caught.value.detail


def test_missing_commands_are_named():
    check_capabilities(ALL_BITS)
    for bit, name in REQUIRED_BITS.items():
        with pytest.raises(PotentiostatError) as caught:
            check_capabilities(ALL_BITS & ~(1 << bit))
        assert caught.value.detail.endswith(f"lacks {name}")


def test_every_code_has_a_meaning_and_a_remedy():
    assert all(len(code) == 4 and what and helps for code, (what, helps) in CODES.items())
    assert (
        sentence("0032", "Line 7")
        == "error 0032 (Line 7), critical overload of the cell: check leads, cell and set point"
    )
    assert "not in the list" in sentence("abcd") and "ABCD" in sentence("abcd")
