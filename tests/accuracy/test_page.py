from __future__ import annotations

from tests.accuracy.effort import QUICK
from tests.accuracy.page import page
from tests.bench.figures import Figure


def test_a_section_is_replaced_where_it_stands_and_others_stay():
    whole = page([(name, "about {seconds:.0f} s", [Figure("noise", name, "")]) for name in ("One", "Two")], QUICK)
    assert whole.index("## One") < whole.index("| noise | One |") < whole.index("## Two") < whole.index("| noise | Two")
    again = page([("One", "other words", [Figure("noise", "less", "")]), ("Three", "more", [])], QUICK, whole)
    assert "| noise | One |" not in again and "| noise | less |" in again and "other words" in again
    assert again.index("## One") < again.index("## Two") < again.index("## Three")
    assert page([("Two", "about {seconds:.0f} s", [Figure("noise", "Two", "")])], QUICK, whole) == whole
