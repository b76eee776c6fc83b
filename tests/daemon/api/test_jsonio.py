"""JSON without NaN, and media types."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from daemon.api.accept import NotAcceptable, choose
from daemon.api.jsonio import FLOAT32_DIGITS, array_list, dumps
from daemon.events import EventKind
from daemon.parts import PartStatus

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def refuse(constant: str) -> None:
    raise AssertionError(constant)


@given(values)
def test_whatever_comes_is_strict_json(value: object) -> None:
    json.loads(dumps(value), parse_constant=refuse)


@given(st.lists(st.floats(width=32), max_size=50))
def test_single_precision_is_kept_to_its_digits(numbers: list[float]) -> None:
    listed = array_list(np.array(numbers, np.float32))
    for found, given_ in zip(listed, numbers, strict=True):
        if not math.isfinite(given_):
            assert found is None
        else:
            assert found == pytest.approx(given_, rel=10.0 ** (1 - FLOAT32_DIGITS), abs=1e-45)


def test_single_precision_does_not_print_noise() -> None:
    assert dumps(np.array([0.1, -1e-5, 0.0, 123456.7, np.nan], np.float32)) == b"[0.1,-0.00001,0.0,123456.7,null]"


def test_what_the_daemon_is_made_of() -> None:
    value = {
        "kind": EventKind.STEP, "path": Path("/a"), "part": PartStatus("x", "ready", values={"v": np.float64("nan")}),
        "at": datetime(2026, 1, 2, tzinfo=UTC), "n": np.int64(3), "b": np.bool_(True), 5: {1}, "f": np.float32(0.1),
        "grid": np.array([[1.0, np.inf]]),
    }  # fmt: skip
    found = json.loads(dumps(value))
    assert found["kind"] == "step"
    assert found["part"]["values"] == {"v": None}
    assert (found["at"], found["n"], found["b"], found["5"]) == ("2026-01-02T00:00:00Z", 3, True, [1])
    assert (found["f"], found["grid"]) == (0.1, [[1.0, None]])
    with pytest.raises(TypeError, match="object"):
        dumps(object())


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, "a/x"),
        ("", "a/x"),
        ("*/*", "a/x"),
        ("b/y", "b/y"),
        ("b/*", "b/y"),
        ("B/Y; charset=utf-8", "b/y"),
        ("a/x;q=0.1, b/y;q=0.9", "b/y"),
        ("a/x;q=0, */*;q=0.1", "b/y"),
        ("text/html, */*;q=0.8", "a/x"),
        ("garbage", "a/x"),
        ("c/z", None),
        ("a/x;q=0", None),
        ("a/x;q=nonsense", None),
    ],
)
def test_the_media_type_is_chosen_by_preference(header: str | None, chosen: str | None) -> None:
    request = make_mocked_request("GET", "/", headers={} if header is None else {"Accept": header})
    if chosen is None:
        with pytest.raises(NotAcceptable, match="a/x"):
            choose(request, ("a/x", "b/y"))
    else:
        assert choose(request, ("a/x", "b/y")) == chosen
