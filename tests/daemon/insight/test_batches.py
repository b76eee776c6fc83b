from __future__ import annotations

import json
import math

import numpy as np
import pytest

from daemon.insight.batches import Comparison, compare
from daemon.insight.pairs import Pair
from tests.daemon.insight.runs import correlated, no_record, particle_columns, plain_cell, run_data


def pair(found: Comparison, quantity: str) -> Pair:
    (one,) = [each for each in found.pairs if each.quantity == quantity]
    return one


def group(name: str, first: int, cells: int, **options):
    return [plain_cell(first + k, name=f"{name}{k}", **options) for k in range(cells)]


def test_cells_are_the_replicates():
    found = compare({"A": group("a", 1, 3), "B": group("b", 11, 3, shift=0.3)})
    rate = pair(found, "rate")
    assert rate.basis == "cells" and rate.free == 4 and rate.verdict == "differ"
    assert rate.lo < math.expm1(0.3) < rate.hi and rate.p_holm >= rate.p and math.isnan(rate.cell_sd_for_nothing)
    spread = pair(found, "spread")
    assert spread.verdict == "not shown to differ" and spread.lo < 0 < spread.hi
    assert spread.cells_needed > 3 and "cells a group are needed" in spread.sentence
    assert found.warnings == () and len(found.pairs) == 4
    assert found.verdict()[0] == "Different: typical rate (B against A)."


def test_a_field_of_view_is_one_replicate():
    found = compare({"A": [plain_cell(1, count=300)], "B": [plain_cell(2, count=300, shift=0.2, name="b")]})
    rate = pair(found, "rate")
    assert rate.basis == "particles" and rate.verdict == "cells differ" and rate.free > 250
    assert (
        "not of the groups" in rate.sentence
        and "It is nothing as soon as equal cells differ by more than" in rate.sentence
    )
    assert "one replicate" in found.warnings[0]
    shift, sigma = math.log1p(rate.effect), rate.cell_sd_for_nothing
    assert 0 < sigma < shift
    nothing = compare(found_runs(found), rate_cell_sd=1.01 * sigma)
    something = compare(found_runs(found), rate_cell_sd=0.99 * sigma)
    assert pair(nothing, "rate").verdict == "not shown to differ" and pair(something, "rate").verdict == "differ"
    assert pair(nothing, "rate").basis == "given" and pair(nothing, "spread").basis == "particles"


def found_runs(found):
    return {name: [cell.run for cell in found.sources if cell.group == name] for name in found.groups}


def test_spread_inactive_and_retention_of_two_cells():
    a = plain_cell(1, count=300, dead=0.02)
    b = plain_cell(2, count=300, dead=0.2, spread=0.6, name="b")
    b.cycles["retention"] = 1 - 3 * (1 - b.cycles["retention"])
    found = compare({"A": [a], "B": [b]})
    spread, inactive, retention = (pair(found, name) for name in ("spread", "inactive", "retention"))
    assert {each.verdict for each in (spread, inactive, retention)} == {"cells differ"}
    assert spread.lo < 0.5 < spread.hi and inactive.lo < 0.18 < inactive.hi
    assert retention.effect == pytest.approx(-0.04, abs=0.005)


def test_every_pair_of_three_groups_and_holm_over_all():
    found = compare({name: group(name, 10 * k, 2) for k, name in enumerate("ABC")})
    assert len(found.pairs) == 12 and {(each.a, each.b) for each in found.pairs} == {("A", "B"), ("A", "C"), ("B", "C")}
    assert all(each.free == 3 for each in found.pairs)
    least = min(found.pairs, key=lambda each: each.p)
    assert least.p_holm == pytest.approx(min(1.0, 12 * least.p))


def test_different_protocols_are_not_compared_in_rate():
    found = compare({"A": [plain_cell(1)], "B": [plain_cell(2, c_rate=1.0, name="b")]})
    assert found.verdict()[0] == "No difference is shown."
    assert pair(found, "rate").verdict == "unknown" and "not known for A and B" in pair(found, "rate").sentence
    assert pair(found, "inactive").verdict == "cells not shown to differ"
    assert any("No half of one has the kind and current" in each for each in found.warnings)
    three = compare({"A": group("a", 1, 2), "B": [plain_cell(5, name="b"), plain_cell(6, c_rate=1.0, name="fast")]})
    assert any("Different protocols: no charge at 0.5" in each and "fast" in each for each in three.warnings)
    assert pair(three, "rate").free == 1


def test_runs_without_a_record():
    bare = [plain_cell(k, echem=no_record(), name=f"bare{k}") for k in range(2)]
    both = compare({"A": [bare[0]], "B": [bare[1]]})
    assert math.isfinite(pair(both, "rate").p) and any(
        "C-rates are equal is not known" in each for each in both.warnings
    )
    one = compare({"A": [bare[0]], "B": [plain_cell(3)]})
    assert pair(one, "rate").verdict == "unknown" and any("left out of rates" in each for each in one.warnings)


def test_runs_without_halves_pixel_size_or_particles():
    early = run_data(particle_columns(np.random.default_rng(1), 40), path="early.db")
    few = {name: values[:3] for name, values in particle_columns(np.random.default_rng(2), 40).items()}
    few["equivalent_diameter_um"] = np.full(3, np.nan)
    tiny = run_data(few, path="tiny.db", metadata={"pixel_size_nm": None})
    none = run_data({name: values[:0] for name, values in few.items()}, path="none.db")
    found = compare({"early": [early], "tiny": [tiny], "none": [none]})
    verdicts = {each.quantity: each.verdict for each in found.pairs if {each.a, each.b} == {"early", "tiny"}}
    assert verdicts == {
        "rate": "unknown", "spread": "unknown", "inactive": "cells not shown to differ", "retention": "unknown",
    }  # fmt: skip
    assert all(each.verdict == "unknown" for each in found.pairs if "none" in (each.a, each.b))
    assert any("different pixel sizes" in each for each in found.warnings)
    json.dumps(found.as_dict(), allow_nan=False)


def test_neighbours_that_agree_are_said_and_widen_two_cells():
    runs = {name: plain_cell(seed, count=150, dead=0.0, spread=0.0, name=name) for name, seed in (("a", 1), ("b", 2))}
    for seed, run in enumerate(runs.values()):
        shared = 0.4 * correlated(np.random.default_rng(seed), run.particles, 500.0)
        run.cycles["rate_per_h"] *= np.exp(np.tile(shared, 6))
    found = compare({name: [run] for name, run in runs.items()})
    assert any("count for fewer: typical rate of a, typical rate of b" in each for each in found.warnings)
    rate = pair(found, "rate")
    assert rate.hi - rate.lo > 4 * 2.576 * 0.4 * math.sqrt(2 / 150)


def test_the_document_has_everything_and_no_nan():
    found = compare({"A": group("x", 1, 2), "B": [plain_cell(9, name="x0")]})
    document = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert set(document) == {
        "alpha", "verdict", "warnings", "groups", "conditions", "cells", "group_means", "pairs", "protocols",
    }  # fmt: skip
    assert [cell["cell"] for cell in document["cells"]] == ["x0.db", "x1", "x0.db"], "equal names by their paths"
    assert document["group_means"]["rate"]["A"]["cells"] == 2 and document["conditions"][0]["unit"] == "C"
    assert document["verdict"] == ["No difference is shown.", *(each["sentence"] for each in document["pairs"])]
