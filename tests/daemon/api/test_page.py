"""The status page: whole, closed to the outside, and escaping what it shows."""

from __future__ import annotations

import re
from pathlib import Path

from daemon.api.page import HTML, content_policy, plotly_script
from daemon.events import EventKind
from tests.daemon.api.conftest import Serve, Served
from tests.daemon.api.fakes import TOKENS


async def test_the_page_is_served_under_a_strict_policy(served: Served) -> None:
    for path in ("/", "/api/v1", "/api/v1/"):
        async with served.ask("GET", path) as response:
            text = await response.text()
        assert response.content_type == "text/html"
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert text == HTML


async def test_the_page_needs_no_token_its_data_does(serve: Serve) -> None:
    served = await serve(tokens=TOKENS)
    async with served.ask("GET", "/") as response:
        assert response.status == 200
    await served.json("GET", "/status", 401)


async def test_plotly_comes_from_this_machine(served: Served) -> None:
    async with served.ask("GET", "/static/plotly.min.js") as response:
        assert response.content_type == "text/javascript"
        assert response.content_length == plotly_script().stat().st_size
        assert b"plotly.js" in await response.content.read(200)


def test_nothing_is_fetched_from_elsewhere() -> None:
    assert re.findall(r"""(?:src|href)=["']([^"']*)["']""", HTML) == ["data:,", "/static/plotly.min.js"]
    assert not re.findall(r"https?://", HTML)
    assert "url(" not in HTML


def test_nothing_shown_is_parsed_as_html() -> None:
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert danger not in HTML
    assert not re.findall(r"\son\w+\s*=\s*[\"']", HTML), "inline handlers do not run under the policy"
    assert not re.findall(r"<[^>]+\sstyle=", HTML), "inline styles do not apply under the policy"


def test_the_policy_follows_the_page() -> None:
    assert content_policy(HTML) != content_policy(HTML.replace("Connecting", "Connected").replace("use strict", "use"))
    one = content_policy("<script>a</script><style>b</style>")
    assert one.count("sha256-") == 3


SHORT = {"robust standard deviations": {"σ"}, "relative change": {"%"}, "count": {"frames", "restarts"}}


def test_magnitudes_have_the_unit_of_the_documentation() -> None:
    table = HTML.partition("const UNITS = {")[2].partition("};")[0]
    shown = dict(re.findall(r"(\w+): \"([^\"]+)\"", table))
    page = (Path(__file__).parents[3] / "docs" / "events.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", page, flags=re.MULTILINE))
    assert set(documented) == {kind.value for kind in EventKind}
    assert set(shown) == {kind for kind, unit in documented.items() if unit != "none"}
    for kind, unit in shown.items():
        assert unit in SHORT.get(documented[kind], {documented[kind]})
