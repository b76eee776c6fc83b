"""Kinetic models of single particles, fitted to a finished run: rates, diffusivities, and what they predict.

`fit_models` is what command and report call. What the data cannot tell is NaN with a reason; where they bound it, one
end of the interval is finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from daemon.errors import InsightError, InsightReason
from daemon.insight import transformation
from daemon.insight.equilibrium import Equilibrium, from_file, from_run
from daemon.insight.kinetics import A_AT, FLOOR_SOC, PROFILE, PROFILE_SIGMA, STAGES, U_AT, Common, Joint, Observed
from daemon.insight.observe import EVERY, ROUGH_EVERY, Cell, grouped, steps
from daemon.insight.run_data import RunData
from daemon.photometry.derive import Z90, SocTable
from kernels.electrode import THERMAL_V
from kernels.kinetics import LN_RATE, LN_TAU

COMMON_PARTICLES, COMMON_POINTS = 40, 24_000
"""The common parameters are settled by so many particles at most, and by fewer, at least `FEWEST`, where they have more
points than this together: more make them no surer than their systematics."""
FEWEST = 12
REPRESENTATIVES = 200
"""Particles that are read beside those asked for: for what is common, and for the ensemble's charge."""
READ_WORK, SETTLE_WORK = 30, 60
"""What reading and settling what is common take, in fits of one particle: for the share done, which tells the end."""
MIN_POINTS = 60
INSIDE_S = 1e-6
"""Frames at a border itself would be read twice."""
UNSURE = 0.6
"""Standard deviation of a logarithm beyond which only a bound is given: the interval would span a factor of seven."""
MAX_MISFIT = 0.05
"""Root mean square of the residuals, in SoC, beyond which the model does not describe the particle. Not their chi2: the
noise of long means is far below what a calibration leaves, and a model would be refused for being looked at closely."""
FIRST_RATES_PER_H = tuple(np.geomspace(0.02, 200.0, 9))
FIRST_LN_TAU = 6.0
PROFILE_ROUNDS = 10
VOLTAGE_SIGMA_V = 0.001
"""What the record, the counter electrode and the estimate of U leave open, of the same sign as the current."""
BOUND_STEPS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 13.0, 16.0)
BOUND_CHI2 = Z90**2


@dataclass(frozen=True)
class FitResult:
    """One particle. Rates are its exchange rate at SoC 0.5 (two phases: of the transformation), in 1/h of its own
    charge; `lo`, `hi` bound 90 %. Traces are (M,); empty where nothing was fitted."""

    particle_id: int
    rate_per_h: float = np.nan
    rate_lo_per_h: float = np.nan
    rate_hi_per_h: float = np.nan
    rate_relative_sigma: float = np.nan
    """Of ln(rate), without what is common to all particles: what a comparison between particles rests on."""
    diffusivity_m2_s: float = np.nan
    diffusivity_lo_m2_s: float = np.nan
    diffusivity_hi_m2_s: float = np.nan
    radius_m: float = np.nan
    reason: str = ""
    """Why something is NaN; empty when nothing is."""
    t_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    soc: np.ndarray = field(default_factory=lambda: np.zeros(0))
    soc_sigma: np.ndarray = field(default_factory=lambda: np.zeros(0))
    predicted: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """From the cell's voltage, drawn to the trace by a tenth at every point: what `chi2` is of."""
    simulated: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """From the cell's voltage and the first charge alone."""
    chi2: float = np.nan
    """Per point."""


@dataclass(frozen=True)
class Models:
    """All particles' fits and what is common to them."""

    results: list[FitResult]
    electrode: str
    two_phase: bool
    series_resistance_ohm: float
    scale_sigma: float
    """Of ln(rate), common to all particles: their absolute scale."""
    rate_spread: float
    """Standard deviation of ln(rate) from particle to particle, each one's own uncertainty taken off."""
    soc: np.ndarray
    """(A,) where `activity` is given."""
    activity: np.ndarray
    """(A,) exchange rate over that at SoC 0.5; empty with two phases."""
    activity_sigma: np.ndarray
    """Of ln(activity)."""
    equilibrium_soc: np.ndarray
    equilibrium_v: np.ndarray
    equilibrium_origin: str


def fit_models(
    run: RunData,
    particles: Sequence[int] | None = None,
    ocv: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> Models:
    """Fit `particles` (ids; all by default) of `run`, with the equilibrium voltage of `ocv` if given.

    Raises `InsightError`: no cell's record, no equilibrium voltage to be had, unknown particles; `StoreError`.
    """
    ids = run.particle_id
    wanted = np.isin(ids, list(particles)) if particles is not None else np.ones(len(ids), bool)
    if not wanted.any():
        raise InsightError(InsightReason.NO_PARTICLES, "none of the particles asked for is in this run")
    cell = Cell.cleaned(*(run.echem[name] for name in ("t_s", "voltage_v", "current_ma")))
    if len(cell.t_s) < 10 or cell.largest_ma == 0:
        raise InsightError(InsightReason.NO_RECORD, f"{run.path} holds no current")
    kinds = np.array([row["kind"] if row else "" for row in run.calibrations], object)
    sure = np.isfinite([_soc_sigma(row) for row in run.calibrations])
    state = run.particles["state"]
    alive = (state != "dead") & (state != "lost") & sure
    two_phase = bool((alive & (kinds == "end_members")).sum() > (alive & (kinds == "monotone")).sum())
    able = alive & (kinds == ("end_members" if two_phase else "monotone"))
    read = wanted | _representatives(able)
    begin = READ_WORK / (READ_WORK + SETTLE_WORK + int(wanted.sum()))
    series = Series.read(run, cell, np.flatnonzero(read), lambda share: progress(begin * share))
    reasons = [_reason(str(kind), str(what), bool(known)) for kind, what, known in zip(kinds, state, sure, strict=True)]
    if two_phase:
        return _two_phase(run, series, cell, wanted, able, reasons)
    return SolidSolution(run, series, cell, able & read, ocv).models(
        wanted, reasons, lambda share: progress(begin + (1.0 - begin) * share)
    )


def _representatives(able: np.ndarray) -> np.ndarray:
    """(P,) bool: `REPRESENTATIVES` of the particles `able`, evenly over the field."""
    chosen, places = np.zeros(len(able), bool), np.flatnonzero(able)
    if len(places):
        chosen[places[np.linspace(0, len(places) - 1, REPRESENTATIVES).astype(int)]] = True
    return chosen


def _soc_sigma(row: dict[str, Any] | None) -> float:
    sigma = row.get("soc_sigma") if row else None
    return np.nan if sigma is None else float(sigma)


def _reason(kind: str, state: str, sure: bool) -> str:
    if state in ("dead", "lost"):
        return state
    if kind in ("", "none", "folded"):
        return f"no SoC: {kind or 'not calibrated'}"
    return "the other particles are of the other kind of phase" if sure else "its curve between the ends is not known"


@dataclass(frozen=True)
class Series:
    """K particles of a run on the models' time grid: (M, K) arrays."""

    index: np.ndarray
    """(K,) particle indices of the columns, rising."""
    t_s: np.ndarray
    borders_s: np.ndarray
    soc: np.ndarray
    soc_noise: np.ndarray
    gradient: np.ndarray
    gradient_sigma: np.ndarray
    offset_sigma: np.ndarray
    """(K,)"""

    @classmethod
    def read(cls, run: RunData, cell: Cell, index: np.ndarray, progress: Callable[[float], None]) -> Series:
        """The traces of the particles at `index` (K,) in each piece of the cell's record, as many points to each of a
        kind.
        """
        rows = [run.calibrations[k] for k in index.tolist()]
        table = SocTable({k: row for k, row in enumerate(rows) if row}, len(rows))
        parts: list[tuple[np.ndarray, ...]] = []
        end = float(cell.t_s[-1])

        def read(begin: float, to: float, points: int) -> np.ndarray:
            progress(begin / max(end, 1e-9))
            traces = run.traces(points, begin + INSIDE_S, to - INSIDE_S, indices=index)
            contrast, sigma = traces.contrast.astype(float), traces.contrast_sigma.astype(float)
            noise = np.abs(table.soc(contrast + sigma, 3 * sigma) - table.soc(contrast - sigma, 3 * sigma)) / 2
            parts.append((traces.soc, noise, traces.gradient, traces.gradient_sigma))
            return traces.t_s

        times, borders = grouped(cell.segments(), read)
        if len(times) < MIN_POINTS:
            raise InsightError(InsightReason.NO_RECORD, "frames and the cell's record hardly overlap")
        soc, noise, gradient, sigma = (np.concatenate([part[k] for part in parts]).astype(float) for k in range(4))
        own = np.array([_soc_sigma(row) for row in rows])
        return cls(index, times, borders, soc, noise, gradient, sigma, np.where(table.usable, own, np.nan))

    def columns(self, which: np.ndarray) -> np.ndarray:
        """Columns of the particles at `which`, indices or (P,) bool; all of them must have been read."""
        return np.searchsorted(self.index, np.flatnonzero(which) if which.dtype == bool else which)

    def observed(self, cell: Cell, which: np.ndarray, every: int = EVERY) -> Observed:
        """What the joint fit takes, of the particles `which` (indices)."""
        which = self.columns(which)
        edges = steps(self.t_s, self.borders_s, every)
        volts, current = cell.at(edges[1:])  # backward Euler asks for the end of a step: means would lag by half of it
        return Observed(
            t_s=self.t_s,
            soc=self.soc[:, which],
            soc_sigma=self.soc_noise[:, which],
            offset_sigma=self.offset_sigma[which],
            gradient=self.gradient[:, which],
            gradient_sigma=self.gradient_sigma[:, which],
            dt_s=np.diff(edges),
            volts=volts,
            amps=current / cell.largest_ma,
            every=every,
        )

    def ensemble(self, able: np.ndarray, area: np.ndarray) -> np.ndarray:
        """(M,) area-weighted SoC of the particles `able`, (P,) bool."""
        soc = self.soc[:, self.columns(able)]
        weight = np.where(np.isfinite(soc), np.where(np.isfinite(area[able]), area[able], 1.0), 0.0)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(np.isfinite(soc), soc, 0.0) * weight).sum(axis=1) / weight.sum(axis=1)


class SolidSolution:
    """The joint fit of a run's solid-solution particles."""

    def __init__(self, run: RunData, series: Series, cell: Cell, able: np.ndarray, ocv: Path | None) -> None:
        self._run, self._series, self._cell = run, series, cell
        self._which = np.flatnonzero(able)
        if not len(self._which):
            raise InsightError(InsightReason.NO_PARTICLES, "no particle has a calibrated state of charge")
        self.equilibrium = from_file(ocv) if ocv else self._own_equilibrium(able)
        self._observed = series.observed(cell, self._which)
        self._telling_now = np.arange(len(self._which))

    def _own_equilibrium(self, able: np.ndarray) -> Equilibrium:
        series, cell = self._series, self._cell
        soc = np.interp(cell.t_s, series.t_s, series.ensemble(able, self._run.particles["area_px"]))
        return from_run(cell.t_s, cell.voltage_v, cell.current_ma, soc)

    def models(self, wanted: np.ndarray, reasons: list[str], progress: Callable[[float], None]) -> Models:
        """Settle what is common, then fit the `wanted` (P,) of all particles."""
        rough = self._series.observed(self._cell, self._which, ROUGH_EVERY)
        first = Joint(rough, self.equilibrium, STAGES[0][0])
        common = Common()
        which = self._telling_now = self._telling(first)
        own = first.begin(which, common, np.log(np.array(FIRST_RATES_PER_H) / 3600.0), FIRST_LN_TAU)
        levels, count = [], int(wanted.sum())
        settled = SETTLE_WORK / (SETTLE_WORK + count)
        for k, (floor, rounds) in enumerate(STAGES):
            joint = first if k == 0 else Joint(self._observed, self.equilibrium, floor)
            own, common = joint.settle(which, own, common, rounds)
            levels.append(float(np.median(own[which, LN_RATE])))
            progress(settled * (k + 1) / len(STAGES))
        wide = Joint(self._observed, self.equilibrium, profile=PROFILE * (1.0 + PROFILE_SIGMA))
        other = wide.settle(which, own, common, PROFILE_ROUNDS)[0]
        # how far it moves when points weigh less or more, when the image's geometry is another, and by the voltage
        moves = np.ptp(levels[1:]), np.median(other[which, LN_RATE]) - levels[-1], self._voltage_share(levels[-1])
        scale_sigma = float(np.sqrt(np.sum(np.square(moves))))
        joint = Joint(self._observed, self.equilibrium)
        others = np.setdiff1d(np.arange(len(own)), which)
        own[others, LN_RATE] = levels[-1]
        own[others, LN_TAU] = np.median(own[which, LN_TAU])
        results: list[FitResult] = []
        place = {int(index): k for k, index in enumerate(self._which)}
        for index in np.flatnonzero(wanted):
            at = place.get(int(index))
            name = int(self._run.particle_id[index])
            results.append(FitResult(name, reason=reasons[index]) if at is None else
                           self._result(joint, at, name, own[at], common, scale_sigma))  # fmt: skip
            progress(settled + (1.0 - settled) * len(results) / count)
        return self._summary(results, common, scale_sigma)

    def _voltage_share(self, ln_rate: float) -> float:
        """What `VOLTAGE_SIGMA_V` is of the overpotential at the largest C-rate, of exchange at `ln_rate`."""
        soc = self._observed.soc[:, self._telling_now]
        rate = np.abs(np.diff(soc, axis=0)) / np.diff(self._observed.t_s)[:, None]
        quick = float(np.nanquantile(rate, 0.95))
        return VOLTAGE_SIGMA_V / (2 * THERMAL_V * np.arcsinh(quick / (2 * np.exp(ln_rate))))

    def _telling(self, joint: Joint) -> np.ndarray:
        """Particles that settle the common parameters: those measured best, evenly over the field."""
        points = np.array([joint.points(k) for k in range(len(self._which))])
        noise = np.nanmedian(np.where(np.isfinite(self._observed.soc_sigma), self._observed.soc_sigma, np.inf), axis=0)
        good = np.flatnonzero((points >= MIN_POINTS) & (noise <= 2.0 * np.median(noise)))
        if not len(good):
            raise InsightError(InsightReason.NO_PARTICLES, "no particle was measured long enough")
        count = min(COMMON_PARTICLES, max(FEWEST, COMMON_POINTS // len(self._observed.t_s)))
        return good[np.unique(np.linspace(0, len(good) - 1, count).astype(int))]

    def _result(
        self, joint: Joint, k: int, name: int, own: np.ndarray, common: Common, scale_sigma: float
    ) -> FitResult:
        if joint.points(k) < MIN_POINTS:
            return FitResult(name, reason=f"measured at {joint.points(k)} points only")
        own, best = joint.improve(k, own, common)
        sigma, predicted = joint.sigma(k), joint.predict(k, own, common)
        soc = self._observed.soc[1:, k]
        used = np.isfinite(soc) & np.isfinite(sigma)
        missed = (soc - predicted)[used]
        chi2, misfit = float(np.mean((missed / sigma[used]) ** 2)), float(np.sqrt(np.mean(missed**2)))
        traces: dict[str, Any] = {"t_s": self._observed.t_s[1:], "soc": soc, "soc_sigma": sigma, "predicted": predicted,
                  "simulated": joint.predict(k, own, common, free=True), "chi2": chi2}  # fmt: skip
        if not misfit <= MAX_MISFIT:
            return FitResult(name, reason=f"the model misses it by {misfit:.2f} of SoC", **traces)
        inverse, follows = joint.sensitivity(k, own, common)
        inverse = inverse * joint.inflation(k, own, common)
        whole = np.diag(inverse + follows @ common.covariance @ follows.T).copy()
        whole[LN_RATE] += scale_sigma**2
        whole[LN_TAU] += PROFILE_SIGMA**2
        rate, rate_why = self._logarithm(joint, k, own, common, LN_RATE, np.sqrt(whole[LN_RATE]), best)
        tau, tau_why = self._logarithm(joint, k, own, common, LN_TAU, np.sqrt(whole[LN_TAU]), best)
        radius = float(self._run.particles["equivalent_diameter_um"][self._which[k]]) * 0.5e-6
        value, low, high = (3600.0 * np.exp(bound) for bound in rate)
        middle, least, most = (float(radius**2 * np.exp(-bound)) for bound in (tau[0], tau[2], tau[1]))
        why = [f"rate {rate_why}"] * bool(rate_why) + [f"diffusion time {tau_why}"] * bool(tau_why)
        why += ["no pixel size: no diffusivity"] * (not np.isfinite(radius))
        return FitResult(
            particle_id=name,
            rate_per_h=float(value),
            rate_lo_per_h=float(low),
            rate_hi_per_h=float(high),
            rate_relative_sigma=float(np.sqrt(inverse[LN_RATE, LN_RATE])),
            diffusivity_m2_s=middle,
            diffusivity_lo_m2_s=least,
            diffusivity_hi_m2_s=most,
            radius_m=radius,
            reason="; ".join(why),
            **traces,
        )

    def _logarithm(
        self, joint: Joint, k: int, own: np.ndarray, common: Common, which: int, sigma: float, best: float
    ) -> tuple[tuple[float, float, float], str]:
        """(value, low, high) of a logarithm and why it is not known: by its sigma, or by what the chi2 excludes."""
        value = float(own[which])
        if sigma <= UNSURE:
            return (value, value - Z90 * sigma, value + Z90 * sigma), ""
        scale = joint.inflation(k, own, common)
        ends = []
        for sign in (-1, 1):
            excluded = np.inf
            for step in BOUND_STEPS:
                trial = own.copy()
                trial[which] += sign * step
                if (joint.profile_chi2(k, trial, common, which) - best) / scale > BOUND_CHI2:
                    excluded = step
                    break
            ends.append(value + sign * excluded)
        why = {(True, False): "only bounded from below", (False, True): "only bounded from above"}.get(
            (bool(np.isfinite(ends[0])), bool(np.isfinite(ends[1]))), "hardly known"
        )
        return (np.nan, ends[0], ends[1]), why

    def _summary(self, results: list[FitResult], common: Common, scale_sigma: float) -> Models:
        soc = np.linspace(0.0, 1.0, 101)
        volts = self.equilibrium.at(soc) + np.interp(soc, U_AT, common.u)
        a_sigma = np.sqrt(np.clip(np.diag(common.covariance)[1 + len(common.u) :], 0.0, None))
        return Models(
            results=results,
            electrode=str(self._run.metadata.get("electrode", "cathode")),
            two_phase=False,
            series_resistance_ohm=common.ohm / self._cell.largest_ma * 1000.0,
            scale_sigma=scale_sigma,
            rate_spread=rate_spread(results),
            soc=A_AT,
            activity=np.exp(common.a),
            activity_sigma=a_sigma,
            equilibrium_soc=soc,
            equilibrium_v=volts,
            equilibrium_origin=self.equilibrium.origin,
        )


def rate_spread(results: Sequence[FitResult]) -> float:
    """Standard deviation of ln(rate) over particles, their own variances subtracted; NaN for fewer than two."""
    known = [(np.log(r.rate_per_h), r.rate_relative_sigma) for r in results if np.isfinite(r.rate_per_h)]
    if len(known) < 2:
        return np.nan
    logs, sigmas = np.array(known).T
    return float(np.sqrt(max(np.var(logs, ddof=1) - np.mean(sigmas**2), 0.0)))


def _two_phase(
    run: RunData, series: Series, cell: Cell, wanted: np.ndarray, able: np.ndarray, reasons: list[str]
) -> Models:
    driven = np.abs(cell.current_ma) > 0.02 * cell.largest_ma
    plateau = float(np.median(cell.voltage_v[driven]))
    fit = transformation.fit(series.t_s, series.soc, cell.segments(), cell, plateau)
    results = []
    for index, k in zip(np.flatnonzero(wanted), series.columns(wanted), strict=True):
        name, value, sigma = int(run.particle_id[index]), fit.ln_rate[k], fit.sigma[k]
        traces: dict[str, Any] = {"t_s": series.t_s, "soc": series.soc[:, k],
                  "soc_sigma": np.hypot(series.soc_noise[:, k], FLOOR_SOC)}  # fmt: skip
        if not able[index] or np.isnan(value):
            results.append(FitResult(name, reason=reasons[index] if not able[index] else "no whole passage was seen"))
            continue
        middle, low, high = (3600.0 * float(np.exp(value + z * sigma)) for z in (0.0, -Z90, Z90))
        if fit.unresolved[k]:
            middle, high = np.nan, np.inf
        why = "passes faster than points resolve; " if fit.unresolved[k] else ""
        results.append(
            FitResult(name, middle, low, high, float(sigma), reason=why + "two phases: no diffusivity", **traces)
        )
    none = np.zeros(0)
    return Models(
        results=results,
        electrode=str(run.metadata.get("electrode", "cathode")),
        two_phase=True,
        series_resistance_ohm=fit.ohm * 1000.0,
        scale_sigma=np.nan,
        rate_spread=rate_spread(results),
        soc=none,
        activity=none,
        activity_sigma=none,
        equilibrium_soc=np.array([0.0, 1.0]),
        equilibrium_v=np.array([fit.plateau_v, fit.plateau_v]),
        equilibrium_origin="the plateau, from passages",
    )
