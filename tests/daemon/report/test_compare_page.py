from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from daemon.insight.batches import compare
from daemon.insight.pairs import WORDS
from daemon.report.compare_page import compare_page
from tests.daemon.insight.runs import no_record, particle_columns, plain_cell, run_data

HOSTILE = "<script>x</script>"


def figures(text):
    """The data and layout of every figure of a page, as plotly gets them."""
    found = []
    decode = json.JSONDecoder()
    for match in re.finditer(r'Plotly\.newPlot\(\s*"figure-[\d-]+",\s*', text):
        data, end = decode.raw_decode(text, match.end())
        layout, _ = decode.raw_decode(text, re.compile(r",\s*").match(text, end).end())
        found.append((data, layout))
    return found


def numbers(values):
    """Plain lists as well as plotly's packed arrays."""
    if isinstance(values, dict):
        import base64

        return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).astype(float).tolist()
    return values


@pytest.fixture(scope="module")
def found():
    return compare({
        HOSTILE: [plain_cell(k, name=f"a{k}") for k in range(2)],
        "new": [plain_cell(9 + k, shift=1.0, dead=0.3, name=f"b{k}") for k in range(2)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def text(found):
    return compare_page(found)


def test_the_verdict_comes_first_and_labels_are_escaped(found, text):
    assert HOSTILE not in text and text.index("Typical rate: new differs from") < text.index('id="effects"')
    assert all(
        f'id="{name}"' in text for name in ("verdict", "effects", "rates", "inactive", "retention", "cells", "power")
    )
    assert compare_page(found) == text


def test_the_effects_drawn_are_those_told(found, text):
    data, layout = figures(text)[0]
    assert layout["title"]["text"].startswith("Effects with 99 %")
    drawn = {trace["y"][0].split("<br>")[0]: trace for trace in data}
    for pair in found.pairs:
        trace = drawn[WORDS[pair.quantity]]
        assert numbers(trace["x"])[0] == pytest.approx(100 * pair.effect)
        reach = numbers(trace["error_x"]["array"])[0]
        assert reach == pytest.approx(100 * (min(2.0, pair.hi) - pair.effect)) and reach >= 0


def test_every_cell_has_its_line_violin_bar_and_curve(text):
    shown = figures(text)
    titles = [layout["title"]["text"] for _, layout in shown]
    assert len(titles) == 8 and sum(title.startswith("Rates, ") for title in titles) == 2
    by_title = dict(zip(titles, shown, strict=True))
    data, layout = by_title["Rates over the mean of the cells, a line a cell"]
    assert len(data) == 4 and layout["xaxis"]["type"] == "log"
    for trace in data:
        assert (np.diff(numbers(trace["x"])) >= 0).all() and 0 < numbers(trace["y"])[0] < numbers(trace["y"])[-1] < 1
    bars, _ = by_title["Inactive particles with Wilson's 95 % interval"]
    assert [trace["type"] for trace in bars] == ["bar"] * 4
    curves = [data for title, (data, _) in by_title.items() if title.startswith("Retention, ")]
    assert [len(data) for data in curves] == [4, 4]
    assert numbers(curves[0][0]["y"])[-1] == pytest.approx(98, abs=0.5)
    power, _ = shown[-1]
    assert [(np.diff(numbers(trace["y"])) < 0).all() for trace in power] == [True] * 4


@pytest.mark.parametrize(
    "runs",
    [
        lambda: (plain_cell(1, c_rate=0.2), plain_cell(2, name="b")),
        lambda: (plain_cell(1, echem=no_record()), plain_cell(2, name="b", cycles=1, echem=no_record())),
        lambda: tuple(run_data(particle_columns(np.random.default_rng(k), 12), path=f"{k}.db") for k in range(2)),
        lambda: tuple(
            run_data({name: v[:0] for name, v in particle_columns(np.random.default_rng(k), 2).items()}, path=f"{k}.db")
            for k in range(2)
        ),
    ],
    ids=["other protocol", "no record", "no halves", "no particles"],
)
def test_pages_of_what_cannot_be_compared(runs):
    a, b = runs()
    text = compare_page(compare({"A": [a], "B": [b]}))
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).lower().split()
    for data, _ in figures(text):
        for trace in data:
            assert not any(isinstance(each, float) and math.isnan(each) for each in numbers(trace.get("y")) or [])
