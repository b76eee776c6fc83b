"""Fitted models as PyBaMM parameter sets: one JSON a particle and one for the ensemble, and one module that loads them.

PyBaMM takes a dictionary of parameters by name with units in it (`pybamm.ParameterValues`,
https://docs.pybamm.org/en/stable/source/api/parameters/parameter_values.html). The names are those of its sets for half
cells, in which the electrode looked at is the positive one, graphite as well (`Xu2019`, `Ecker2015_graphite_halfcell`);
the JSON holds numbers, strings and lists only, so that `pybamm.ParameterValues(json.load(file))` takes it. Functions
(open-circuit potential, exchange-current density) are made by `get_parameter_values` of the module beside it, as
interpolants of the JSON's lists. Butler-Volmer there is j = 2 j0 sinh(F eta / 2RT), as here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.insight.models import FitResult, Models

FARADAY_C_MOL = 96485.33212
TEMPERATURE_K = 298.15
MODULE = "photometry_parameters.py"
EXCHANGE, OCP = "Positive electrode exchange-current density [A.m-2]", "Positive electrode OCP [V]"


@dataclass(frozen=True)
class Assumptions:
    """What light does not tell: of the material, and of the window that SoC is a share of."""

    max_concentration_mol_m3: float = 50_000.0
    """Of an oxide of 100 g/mol and 5 g/cm3; LFP has about 22 800, graphite 30 500."""
    stoichiometry_0: float = 0.95
    """Lithium content at SoC 0."""
    stoichiometry_1: float = 0.35
    counter_v: float = 0.0
    """Potential of the counter electrode against lithium."""

    @classmethod
    def for_electrode(cls, electrode: str) -> Assumptions:
        """A cathode's, or an anode's, whose content rises as the cell charges."""
        return cls() if electrode != "anode" else cls(30_500.0, 0.05, 0.95)


def write_sets(models: Models, out: Path, assumptions: Assumptions | None = None) -> list[Path]:
    """Write `particle_<id>.json` for each particle whose rate is known, `ensemble.json` and the module into `out`."""
    assumptions = assumptions or Assumptions.for_electrode(models.electrode)
    out.mkdir(parents=True, exist_ok=True)
    sets = {f"particle_{fit.particle_id}": parameters(fit, models, assumptions)
            for fit in models.results if np.isfinite(fit.rate_per_h)}  # fmt: skip
    ensemble = median_result(models)
    if ensemble is not None:
        sets["ensemble"] = parameters(ensemble, models, assumptions)
    paths = [out / f"{name}.json" for name in sets]
    for path, values in zip(paths, sets.values(), strict=True):
        path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (out / MODULE).write_text(_MODULE_TEXT, encoding="utf-8")
    return [*paths, out / MODULE]


def median_result(models: Models) -> FitResult | None:
    """Geometric medians over the particles whose rate is known; None without any."""
    known = [fit for fit in models.results if np.isfinite(fit.rate_per_h)]
    if not known:
        return None
    names = ("rate_per_h", "rate_lo_per_h", "rate_hi_per_h", "diffusivity_m2_s", "diffusivity_lo_m2_s",
             "diffusivity_hi_m2_s", "radius_m")  # fmt: skip
    values = {name: np.array([getattr(fit, name) for fit in known]) for name in names}
    middle: dict[str, Any] = {
        name: float(np.median(v[np.isfinite(v)])) if np.isfinite(v).any() else np.nan for name, v in values.items()
    }
    return FitResult(particle_id=-1, **middle)


def parameters(fit: FitResult, models: Models, assumptions: Assumptions) -> dict[str, Any]:
    """PyBaMM's names and SI units. What is not known is left out, and said in the notes."""
    radius, top = fit.radius_m, assumptions.max_concentration_mol_m3
    content = assumptions.stoichiometry_0, assumptions.stoichiometry_1
    values: dict[str, Any] = {
        "chemistry": "lithium_ion",
        "Maximum concentration in positive electrode [mol.m-3]": top,
        "Initial concentration in positive electrode [mol.m-3]": top * content[0],
        "Positive electrode charge transfer coefficient": 0.5,
        "Positive electrode OCP entropic change [V.K-1]": 0.0,
        "Reference temperature [K]": TEMPERATURE_K,
        "Ambient temperature [K]": TEMPERATURE_K,
        "Initial temperature [K]": TEMPERATURE_K,
        "Contact resistance [Ohm]": models.series_resistance_ohm,
    }
    if np.isfinite(radius):
        scale = FARADAY_C_MOL * top * abs(content[1] - content[0]) * radius / 3.0 / 3600.0  # A/m2 for 1/h
        values["Positive particle radius [m]"] = radius
        values[EXCHANGE] = fit.rate_per_h * scale
        values |= _interval("exchange-current density [A.m-2]", fit.rate_lo_per_h * scale, fit.rate_hi_per_h * scale)
    if np.isfinite(fit.diffusivity_m2_s):
        values["Positive particle diffusivity [m2.s-1]"] = fit.diffusivity_m2_s
    values |= _interval("diffusivity [m2.s-1]", fit.diffusivity_lo_m2_s, fit.diffusivity_hi_m2_s)
    return values | _tables(models, assumptions, content) | {
        f"photometry: note {k + 1}": note for k, note in enumerate(notes(fit, models, assumptions))
    }  # fmt: skip


def _interval(name: str, low: float, high: float) -> dict[str, float]:
    ends = {"lower": low, "upper": high}
    return {f"photometry: {name}, {end} end of 90 %": float(value) for end, value in ends.items() if np.isfinite(value)}


def _tables(models: Models, assumptions: Assumptions, content: tuple[float, float]) -> dict[str, list[float]]:
    """The lists that functions are made of, by rising stoichiometry."""
    tables: dict[str, list[float]] = {}
    sign = -1.0 if models.electrode == "anode" else 1.0
    volts = sign * models.equilibrium_v + assumptions.counter_v
    pairs = {"OCP": (models.equilibrium_soc, volts)}
    if len(models.soc):
        pairs["exchange-current density over that at SoC 0.5"] = models.soc, models.activity
    for name, (soc, value) in pairs.items():
        place = content[0] + np.asarray(soc) * (content[1] - content[0])
        order = np.argsort(place)
        tables[f"photometry: {name}, stoichiometry"] = place[order].tolist()
        tables[f"photometry: {name}, value"] = np.asarray(value)[order].tolist()
    return tables


def notes(fit: FitResult, models: Models, assumptions: Assumptions) -> list[str]:
    """Assumptions and reasons, a sentence each."""
    lines = [
        f"Assumed: maximum concentration {assumptions.max_concentration_mol_m3:g} mol/m3.",
        f"Assumed: stoichiometry {assumptions.stoichiometry_0:g} at SoC 0, {assumptions.stoichiometry_1:g} at SoC 1.",
        f"Assumed: counter electrode at {assumptions.counter_v:g} V against lithium, without polarisation of its own.",
        "Assumed: a sphere of the image's equivalent radius, reacting all over; isothermal at 25 C.",
        "Contact resistance of a particle cannot be told from slow exchange: it is in the exchange-current density.",
        f"Open-circuit potential: {models.equilibrium_origin}; series resistance common to all particles.",
        "Electrolyte, separator, counter electrode and cell geometry are not measured: add them from another set.",
    ]
    if models.two_phase:
        lines.append("Two phases: the rate is that of the transformation and the potential is the plateau's.")
    if models.electrode == "anode":
        lines.append(
            "The electrode watched is an anode: its potential is the counter electrode's less the cell's voltage."
        )
    return lines + ([f"Not known: {fit.reason}."] if fit.reason else [])


def table(models: Models) -> list[Mapping[str, Any]]:
    """One row a particle for printing and JSON; NaN is None."""
    names = ("particle_id", "rate_per_h", "rate_lo_per_h", "rate_hi_per_h", "rate_relative_sigma", "diffusivity_m2_s",
             "diffusivity_lo_m2_s", "diffusivity_hi_m2_s", "chi2", "reason")  # fmt: skip
    return [{name: plain(getattr(fit, name)) for name in names} for fit in models.results]


def plain(value: Any) -> Any:
    """As JSON takes it: NaN and infinity are None."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


_MODULE_TEXT = '''"""Parameter sets of photometryctl, for PyBaMM's half-cell models ("working electrode": "positive").

    parameters = pybamm.ParameterValues("Xu2019")  # electrolyte, separator, counter electrode
    parameters.update(get_parameter_values("particle_17"), check_already_exists=False)
"""

import json
from pathlib import Path

import numpy as np
import pybamm

OCP = "Positive electrode OCP [V]"
EXCHANGE = "Positive electrode exchange-current density [A.m-2]"
SHAPE = "exchange-current density over that at SoC 0.5"
AXES = ("stoichiometry", "value")


def get_parameter_values(name="ensemble"):
    """The set `name` (a JSON file beside this module) with its functions of stoichiometry."""
    values = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))

    def curve(what, sto):
        x, y = (np.array(values[f"photometry: {what}, {axis}"]) for axis in AXES)
        return pybamm.Interpolant(x, y, sto, name=what, interpolator="linear")

    def open_circuit_potential(sto):
        return curve("OCP", sto)

    middle = values.get(EXCHANGE)

    def exchange_current_density(c_e, c_s_surf, c_s_max, T):
        return middle * curve(SHAPE, c_s_surf / c_s_max)

    functions = {OCP: open_circuit_potential}
    if middle is not None and f"photometry: {SHAPE}, value" in values:
        functions[EXCHANGE] = exchange_current_density
    return {key: value for key, value in values.items() if not key.startswith("photometry: ")} | functions
'''
