"""Kinetic models of a run's particles, as PyBaMM parameter sets."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.ctl.export import Ids, with_progress
from daemon.ctl.options import json_option
from daemon.ctl.output import print_json, print_table


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN.db")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory to write into.")
@click.option("--particles", type=Ids(), help="Only these: ids and ranges by commas, e.g. 3,7,10-19.")
@click.option(
    "--ocv", type=click.Path(path_type=Path), help="CSV of SoC and cell voltage at rest, in place of the run's."
)
@json_option
def models(run: Path, out: Path, particles: frozenset[int] | None, ocv: Path | None, as_json: bool) -> None:
    """Fit rate constants and diffusivities of RUN.db's particles and write them as PyBaMM parameter sets."""
    from daemon.insight.models import fit_models
    from daemon.insight.pybamm_sets import plain, table, write_sets
    from daemon.insight.run_data import RunData

    data = RunData.load(run)
    chosen = sorted(particles) if particles is not None else None
    fitted = with_progress(lambda tell: fit_models(data, chosen, ocv, progress=tell), "models")
    written = write_sets(fitted, out)
    common = {"rate_spread": fitted.rate_spread, "scale_sigma": fitted.scale_sigma,
              "series_resistance_ohm": fitted.series_resistance_ohm, "two_phase": fitted.two_phase,
              "equilibrium": fitted.equilibrium_origin}  # fmt: skip
    rows = table(fitted)
    if as_json:
        print_json({"common": {name: plain(value) for name, value in common.items()}, "particles": rows,
                    "files": [str(path) for path in written]})  # fmt: skip
        return
    print_table(list(rows[0]) if rows else [], [list(row.values()) for row in rows])
    click.echo(
        f"rates spread by {fitted.rate_spread:.2f} (of ln), their scale is known to {fitted.scale_sigma:.2f}; series "
        f"resistance {fitted.series_resistance_ohm:.1f} ohm; {len(written)} files in {out}"
    )
