"""How the figures of a report look: colours that the colour-blind tell apart, axes with units, one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Okabe & Ito, Color Universal Design (2008)
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#8A8F98"
INK = "#1d2330"
STATE_COLOURS = {"active": BLUE, "partial": ORANGE, "dead": RED, "lost": GREY}
HALF_COLOURS = {"charge": BLUE, "discharge": ORANGE}
CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK, GREY)
SYMBOLS = ("circle", "x", "diamond", "triangle-up", "square", "cross", "star", "triangle-down", "hexagon")
POTENTIAL = "Potential / V vs cell"
UNITS = (("d", 86400.0, 4.0), ("h", 3600.0, 3.0), ("min", 60.0, 5.0), ("s", 1.0, 0.0))

_AXIS = {
    "showline": True, "linecolor": "#c5cad3", "gridcolor": "#eceef2", "zeroline": False, "ticks": "outside",
    "title": {"standoff": 6},
}  # fmt: skip
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK}, "colorway": list(CYCLE),
        "paper_bgcolor": "white", "plot_bgcolor": "white", "xaxis": _AXIS, "yaxis": _AXIS,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 48}, "hovermode": "closest",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0.0, "xanchor": "left"},
    }
)  # fmt: skip


@dataclass(frozen=True)
class TimeAxis:
    """Run time in the unit that suits the run's length."""

    unit: str
    seconds: float

    @classmethod
    def of(cls, length_s: float) -> TimeAxis:
        """For a run of this length."""
        return next(cls(name, seconds) for name, seconds, least in UNITS if length_s >= least * seconds or not least)

    def __call__(self, t_s: np.ndarray | float) -> Any:
        """Seconds in the axis' unit."""
        return np.asarray(t_s, float) / self.seconds

    def at(self, t_s: float) -> str:
        """An instant in words."""
        return f"{t_s / self.seconds:.4g} {self.unit}"

    @property
    def title(self) -> str:
        """Of the axis."""
        return f"Run time / {self.unit}"


def duration(seconds: float) -> str:
    """A duration in words."""
    if not np.isfinite(seconds):
        return "an unknown time"
    axis = TimeAxis.of(abs(seconds) * 2)
    return f"{seconds / axis.seconds:.3g} {axis.unit}"


def figure(rows: int = 1, columns: int = 1, height: int = 340, **options: Any) -> go.Figure:
    """An empty figure of subplots, `options` as of plotly's `make_subplots`; spacing in the figure's own share."""
    if rows == columns == 1 and not options:  # an eighth of the time
        return go.Figure(layout={"template": _TEMPLATE, "height": height})
    made = make_subplots(rows=rows, cols=columns, **options)
    made.update_layout(template=_TEMPLATE, height=height)
    return made


def light(values: Any) -> np.ndarray:
    """As float32: half the bytes in the file, still finer than a screen."""
    return np.asarray(values, np.float32)


def line(x: Any, y: Any, name: str, colour: str, **options: Any) -> go.Scatter:
    """A plain line."""
    style = {"color": colour, "width": options.pop("width", 1.5), "dash": options.pop("dash", "solid")}
    return go.Scatter(x=light(x), y=light(y), name=name, mode="lines", line=style, **options)


def band(x: Any, low: Any, high: Any, name: str, colour: str, opacity: float = 0.25) -> list[go.Scatter]:
    """A filled band; two traces, of which the second is in the legend."""
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    known = np.isfinite(np.asarray(low, float)) & np.isfinite(np.asarray(high, float))
    x, low, high = (np.asarray(each, float)[known] for each in (x, low, high))
    return [
        go.Scatter(x=light(x), y=light(low), showlegend=False, legendgroup=name, **hidden),
        go.Scatter(
            x=light(x), y=light(high), name=name, legendgroup=name, fill="tonexty", fillcolor=rgba(colour, opacity),
            **hidden,
        ),
    ]  # fmt: skip


def rgba(colour: str, opacity: float) -> str:
    """A hex colour with opacity."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def cycle_axis(made: go.Figure, cycles: int) -> None:
    """Title and whole numbers on every x axis."""
    made.update_xaxes(title="Cycle", tickformat="d", dtick=max(1, round(cycles / 10)))


def joined(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(number: int, noun: str) -> str:
    """``1 particle``, ``2 particles``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
