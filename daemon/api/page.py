"""The status page: one HTML file and plotly's JavaScript, both from this installation; nothing is fetched elsewhere."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aiohttp import web

from daemon.api import accept
from daemon.api.auth import Gate
from daemon.api.files import FileAnswer

SCRIPT_PATH = "/static/plotly.min.js"
PAGE_PATHS = ("/", "/api/v1", "/api/v1/")
HTML = resources.files("daemon.api").joinpath("page.html").read_text(encoding="utf-8")
PLOTLY = find_spec("plotly")  # found without importing it


def add_routes(app: web.Application, gate: Gate) -> None:
    """Add the page and its script; open to whoever reaches the port, since they hold no data."""
    headers = {"Content-Security-Policy": content_policy(HTML), "X-Frame-Options": "DENY"}
    script = plotly_script()

    async def status_page(request: web.Request) -> web.Response:
        gate.check_site(request)
        return web.Response(text=HTML, content_type=accept.HTML, headers=headers)

    async def plotly(request: web.Request) -> web.StreamResponse:
        return FileAnswer(
            script, headers={"Content-Type": "text/javascript; charset=utf-8", "Cache-Control": "max-age=86400"}
        )

    for path in PAGE_PATHS:
        app.router.add_get(path, status_page)
    app.router.add_get(SCRIPT_PATH, plotly)


def plotly_script() -> Path:
    """plotly's bundled JavaScript inside its wheel."""
    assert PLOTLY is not None and PLOTLY.origin is not None, "plotly is a dependency of this package"
    return Path(PLOTLY.origin).with_name("package_data") / "plotly.min.js"


def content_policy(html: str) -> str:
    """A policy under which only this page's own script and style run, and nothing leaves for elsewhere.

    The hash of the empty style lets plotly make an empty style element and fill it through the object model.
    """
    scripts = " ".join(_hashes(html, "script"))
    styles = " ".join([*_hashes(html, "style"), _hash("")])
    rules: dict[str, Any] = {
        "default-src": "'none'",
        "script-src": f"'self' {scripts}",
        "style-src": f"'self' {styles}",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hashes(html: str, element: str) -> list[str]:
    return [_hash(text) for text in re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"
