from __future__ import annotations

import re
from html.parser import HTMLParser

import plotly.graph_objects as go
import pytest

from daemon.report.page import Html, Row, Section, Table, page, shown

HOSTILE = '<script>alert("x")</script>'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def document(*parts, title="A run"):
    return page(title, ["42 particles"], [Section("first", "First", parts)])


def test_nothing_is_fetched():
    text = document(go.Figure(go.Scatter(y=[1, 2])), "words")
    for _, attrs in Tags(text).found:
        assert not re.match("https?:|//", attrs.get("src") or attrs.get("href") or "")
    assert text.count("<script>") >= 1


def test_what_comes_from_outside_is_escaped():
    text = page(HOSTILE, [HOSTILE], [Section(HOSTILE, HOSTILE, [HOSTILE, Table([HOSTILE], [[HOSTILE]], HOSTILE)])])
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert") >= 8


def test_equal_input_gives_an_equal_page():
    assert document(go.Figure(go.Scatter(y=[1]))) == document(go.Figure(go.Scatter(y=[1])))


def test_ready_html_passes_unchanged():
    assert "<b>bold</b>" in document(Html("<b>bold</b>"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.23456, "1.23"),
        (float("nan"), "–"),
        (None, "–"),
        (7, "7"),
        ("x", "x"),
        (1e-9, "1e-09"),
        (1080.4, "1080"),
        (-0.0, "0"),
    ],
)
def test_values_as_readers_want_them(value, expected):
    assert shown(value) == expected


def test_parts_side_by_side_have_figures_of_their_own():
    text = document(Row([Html("<i>left</i>"), go.Figure(go.Scatter(y=[1]))]), go.Figure(go.Scatter(y=[2])))
    assert "<i>left</i>" in text
    assert {attrs["id"] for tag, attrs in Tags(text).found if attrs.get("id", "").startswith("figure")} == {
        "figure-0-0-1",
        "figure-0-1",
    }
