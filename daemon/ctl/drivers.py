"""What goes with particles' fates: run files asked one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.ctl.compare import loaded_run, refuse_twins
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json, print_table

_COLUMNS = (
    "run", "fate", "property", "measure", "effect", "lo", "hi", "p", "q", "standing", "beside", "beside_lo",
    "beside_hi", "changes_p", "particles", "failures",
)  # fmt: skip
_IN_SIGMA = ("standard deviations", 0.0)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN.db [RUN.db]...")
@click.option("--alpha", type=click.FloatRange(1e-6, 0.2), default=0.05, show_default=True,
              help="Share of what is named in a run that may be false.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="List every property that was tested, not only those named.")
@json_option
def drivers(runs: tuple[Path, ...], alpha: float, everything: bool, as_json: bool) -> None:
    """What goes with the fates of a run's particles: size, shape, brightness, crowding and place against failure,
    cracking, fade, rate, lag and inactivity.

    Each run is tested by itself. What is named in one run only, or with the other sign in another, has not been
    confirmed.
    """
    from daemon.insight.batches import plain
    from daemon.insight.drivers import drivers as find

    loaded = [loaded_run(path) for path in runs]
    refuse_twins(loaded)
    found = [plain(_document(run, find(run, alpha))) for run in loaded]
    if as_json:
        print_json({"alpha": alpha, "runs": found})
        return
    for document in found:
        _tell(document)
    rows = _rows(found, everything)
    if rows:
        shown = [name for name in _COLUMNS if any(row.get(name) is not None for row in rows)]
        shown = [name for name in shown if name != "run" or len(found) > 1]
        print_table(shown, ([row.get(name) for name in shown] for row in rows))


def _document(run: Any, found: Any) -> dict[str, Any]:
    """Everything that was found, with what each effect is measured in."""
    document = found.as_dict()
    for fate in document["fates"]:
        fate["measure"], fate["no_effect"] = ("hazard ratio", 1.0) if fate["failures"] is not None else _IN_SIGMA
    return {"run": run.path.stem, "path": str(run.path), "particles": len(run.particle_id)} | document


def _tell(document: dict[str, Any]) -> None:
    """One run in sentences: what was found, what was not, what could not be told and why."""
    click.echo(f"{document['path']}: {document['particles']} particles")
    for sentence in document["sentences"]:
        click.echo(f"  {sentence}")
    for fate in document["fates"]:
        told = fate["words"].capitalize()
        for effect in fate["effects"]:
            if effect["leading"] and effect["changes_p"] is not None and effect["changes_p"] < document["alpha"]:
                ratio = f"the hazard ratio of {_spaced(effect['covariate'])} changes over the run"
                click.echo(f"  {told}: {ratio} (p = {effect['changes_p']:.1g}): it is an average.")
        if fate["concordance"] is not None:
            share = f"{100 * fate['concordance']:.0f} % of pairs (50 % is chance)"
            click.echo(f"  {told}: the drivers tell which of two goes first in {share}.")
        for note in fate["notes"] if not fate["unknown"] else ():
            click.echo(f"  {told}: {note}.")
    left_out: dict[tuple[str, str], list[str]] = {}
    for fate in document["fates"]:
        for left in fate["not_tested"].items():
            left_out.setdefault(left, []).append(fate["words"])
    for (name, why), fates in left_out.items():
        click.echo(f"  Not tested: {_spaced(name)}, {why}, against {', '.join(fates)}.")
    for name, why in document["unknown"].items():
        click.echo(f"  Not used: {_spaced(name)}, {why}.")


def _rows(found: list[dict[str, Any]], everything: bool) -> list[dict[str, Any]]:
    """One row an effect, by fate, property and run: those that stand in any run, in every run that tested them."""
    rows = [
        effect
        | {"run": document["run"], "fate": fate["words"], "property": _spaced(effect["covariate"])}
        | {"measure": fate["measure"], "failures": fate["failures"], "place": place}
        for document in found
        for place, fate in enumerate(document["fates"])
        for effect in fate["effects"]
    ]
    named = {(row["fate"], row["property"]) for row in rows if everything or row["standing"] != "none"}
    kept = [row for row in rows if (row["fate"], row["property"]) in named]
    best: dict[tuple[str, str], float] = {}
    for row in kept:
        key = (row["fate"], row["property"])
        best[key] = min(best.get(key, 1.0), row["p"] if row["p"] is not None else 1.0)
    return sorted(kept, key=lambda row: (row["place"], best[row["fate"], row["property"]], row["property"]))


def _spaced(name: str) -> str:
    return name.replace("_", " ")
