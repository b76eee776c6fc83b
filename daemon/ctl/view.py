"""What `status` and `watch` show. Tolerant: a field that is missing is left out, one that is new is shown."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from daemon.ctl.events import line
from daemon.ctl.output import STATE_STYLES, listed, section, shown, styled
from daemon.tables import PARTICLE_STATES

_READINGS = (
    ("voltage_v", "V"), ("current_ma", "mA"), ("charge_mah", "mAh"), ("mode", ""), ("cycle", ""), ("step", ""),
    ("step_text", ""),
)  # fmt: skip
_TOLD = ("unusual", "rate_cv", "rate_cv_sigma", "rate_cv_basis", "rate_cv_means")
"""Told in lines of their own."""


def status(document: dict[str, Any]) -> Group:
    """The parts as a table, under one line that says the whole."""
    table = _parts(document, with_values=True)
    return Group(_headline(document), table, _cell_line(document), *_selftest(document), *_science(document))


def board(document: dict[str, Any], frames_per_s: float | None, events: list[dict[str, Any]], problem: str) -> Group:
    """The live screen."""
    panels: list[Any] = [_headline(document)]
    if problem:
        panels.append(Text(problem, style="bold red"))
    panels += [
        Panel(_parts(document, with_values=False), title="parts", title_align="left"),
        Panel(Group(_cell_line(document), _camera_line(document, frames_per_s)), title="now", title_align="left"),
    ]
    science = _science(document)
    if science:
        panels.append(Panel(Group(*science), title="run", title_align="left"))
    told = "\n".join(line(event) for event in reversed(events)) or "none yet"
    panels.append(
        Panel(Text(told, no_wrap=True, overflow="ellipsis"), title="events, newest first", title_align="left")
    )
    return Group(*panels)


def _headline(document: dict[str, Any]) -> Text:
    state = shown(document.get("state"))
    text = Text.assemble(("photometryd ", "bold"), shown(document.get("version")), "  ")
    text.append(state, style=STATE_STYLES.get(state, ""))
    run = section(document, "run")
    if run:
        text.append(f"  run {shown(run.get('run_id'))} {shown(run.get('name'))}: {shown(run.get('state'))}")
        text.append(f", {shown(run.get('frames'))} frames, {shown(run.get('particles'))} particles")
    else:
        text.append("  no run")
    disk = section(document, "disk")
    if isinstance(disk.get("free_mb"), int | float):
        hours = disk.get("full_in_h")
        text.append(f"  {disk['free_mb'] / 1000:.1f} GB free" + (f", full in {hours:.1f} h" if hours else ""))
    return text.append(f"  {shown(document.get('utc'))}", style="dim")


def _parts(document: dict[str, Any], with_values: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for name in ("part", "state", "why and what to do", *(["values"] if with_values else [])):
        table.add_column(name, overflow="fold")
    for part in listed(document, "parts"):
        why = " ".join(str(part.get(name)).rstrip(".") + "." for name in ("detail", "remedy") if part.get(name))
        reason = f"[{part['reason']}] " if part.get("reason") else ""
        cells = [Text(shown(part.get("name"))), styled(part.get("state")), Text(reason + why)]
        if with_values:
            values = {name: value for name, value in section(part, "values").items() if value is not None}
            cells.append(Text(shown(values), style="dim"))
        table.add_row(*cells)
    return table


def _cell_line(document: dict[str, Any]) -> Text:
    cell = section(document, "cell")
    state = shown(cell.get("state"))
    text = Text.assemble("cell ", (state, STATE_STYLES.get(state, "")))
    values = section(cell, "values")
    for name, unit in _READINGS:
        if values.get(name) is not None:
            text.append(f"  {name.rsplit('_', 1)[0] if unit else name} {shown(values[name])} {unit}".rstrip())
    return text.append(f"  {cell['detail']}") if cell.get("detail") else text


def _selftest(document: dict[str, Any]) -> list[Text]:
    """The last self-test: its outcome and what did not pass."""
    selftest = section(document, "selftest")
    if not selftest:
        return []
    outcome = shown(selftest.get("outcome"))
    text = Text.assemble("self-test ", (outcome, STATE_STYLES.get(outcome, "")))
    for kind in ("failed", "warned"):
        if selftest.get(kind):
            text.append(f"  {kind}: {', '.join(map(str, selftest[kind]))}")
    return [text.append(f"  {shown(selftest.get('utc'))}", style="dim")]


def _camera_line(document: dict[str, Any], frames_per_s: float | None) -> Text:
    values = _values(document, "engine")
    dropped = values.get("dropped")
    rate = "-" if frames_per_s is None else f"{frames_per_s:.1f}"
    text = Text(f"camera {rate} frames/s  captured {shown(values.get('captured'))}  dropped ")
    return text.append(shown(dropped), style="red" if _total(dropped) else "")


def _science(document: dict[str, Any]) -> list[Any]:
    """What the run's science knows: counts of particle states first, then the other values by name."""
    science = section(document, "science")
    counts = {name: science.get(f"particles_{name}", science.get(name)) for name in PARTICLE_STATES}
    lines = []
    if any(count is not None for count in counts.values()):
        text = Text(f"particles {shown(science.get('particles'))}:")
        for name, count in counts.items():
            text.append(f"  {shown(count)} ").append(name, style=STATE_STYLES.get(name, ""))
        lines.append(text)
    if science.get("rate_cv") is not None:
        lines.append(_spread_line(science))
    unusual = [Text(f"  {each['reason']}") for each in listed(science, "unusual") if each.get("reason")]
    if unusual:
        lines += [Text("unusual:"), *unusual]
    told = {"particles", *PARTICLE_STATES, *(f"particles_{name}" for name in PARTICLE_STATES), *_TOLD}
    rest = {name: value for name, value in science.items() if name not in told and value is not None}
    if rest:
        lines.append(Text(shown(rest)))
    return lines


def _spread_line(science: dict[str, Any]) -> Text:
    sigma = science.get("rate_cv_sigma")
    within = "" if sigma is None else f" +- {shown(round(100 * float(sigma), 1))}"
    return Text(
        f"spread of rates {shown(round(100 * float(science['rate_cv']), 1))}{within} %: "
        f"{shown(science.get('rate_cv_means', 'of the last half'))}"
    )


def captured_frames(document: dict[str, Any]) -> float | None:
    """Frames the engine has captured since its start; None where it does not say."""
    captured = _values(document, "engine").get("captured")
    return float(captured) if isinstance(captured, int | float) else None


def _values(document: dict[str, Any], part: str) -> dict[str, Any]:
    found = [one for one in listed(document, "parts") if one.get("name") == part]
    return section(found[0], "values") if found else {}


def _total(dropped: Any) -> float:
    """Sum of a counter that may be split by stage and reason."""
    if isinstance(dropped, dict):
        return sum(_total(value) for value in dropped.values())
    return float(dropped) if isinstance(dropped, int | float) else 0.0
