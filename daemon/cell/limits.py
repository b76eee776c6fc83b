"""Safety limits: pure checks of samples and set points. Anything that is not clearly inside is a breach."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daemon.errors import ExperimentError, ExperimentReason
from daemon.recipe import CellLimits
from hw.potentiostat.contract import CellSample, PotentiostatInfo

NEAR_SHARE = 0.1  # of the window: how far from a limit a device's own trip is still explained by it
RANGE_SLACK = 0.05  # instruments read a little beyond their range; further out it is no measurement
FUTURE_S = 1.0  # a sample from the future has a broken stamp; host clock reads are never this far apart
_UPPER = ("max_voltage_v", "max_current_ma", "max_time_s", "max_capacity_mah")


@dataclass(frozen=True)
class Breach:
    """A limit that was passed: its name, the value that passed it, and where it stood."""

    limit: str
    value: float
    bound: float
    sentence: str = ""

    def __str__(self) -> str:
        return self.sentence or f"{self.limit} = {self.bound:.6g} was passed: {self.value:.6g}"


def check_sample(
    sample: CellSample, limits: CellLimits, info: PotentiostatInfo, now_s: float, max_age_s: float
) -> Breach | None:
    """The first limit that `sample` passes, None when it is well inside all of them.

    `now_s` is `time.monotonic()`. Values or stamps that are not finite, and samples older than `max_age_s`, are
    breaches: they do not show that the cell is safe.
    """
    return (
        _not_finite(sample)
        or _stale(sample, now_s, max_age_s)
        or _outside_limits(sample, limits)
        or _outside_range(sample, info)
    )


def _not_finite(sample: CellSample) -> Breach | None:
    for name in ("voltage_v", "current_ma", "device_t_s", "host_t_s"):
        value = getattr(sample, name)
        if not math.isfinite(value):
            return Breach(name, value, math.inf, f"a sample's {name} is {value}")
    return None


def _stale(sample: CellSample, now_s: float, max_age_s: float) -> Breach | None:
    age_s = now_s - sample.host_t_s
    if age_s > max_age_s:
        return Breach("sample_deadline_s", age_s, max_age_s, f"a sample is {age_s:.3g} s old, over {max_age_s:g} s")
    if age_s < -FUTURE_S:
        return Breach("host_t_s", age_s, -FUTURE_S, f"a sample is stamped {-age_s:.3g} s ahead of this host's clock")
    return None


def _outside_limits(sample: CellSample, limits: CellLimits) -> Breach | None:
    if sample.voltage_v > limits.max_voltage_v:
        return Breach("max_voltage_v", sample.voltage_v, limits.max_voltage_v)
    if sample.voltage_v < limits.min_voltage_v:
        return Breach("min_voltage_v", sample.voltage_v, limits.min_voltage_v)
    if abs(sample.current_ma) > limits.max_current_ma:
        return Breach("max_current_ma", sample.current_ma, limits.max_current_ma)
    return None


def _outside_range(sample: CellSample, info: PotentiostatInfo) -> Breach | None:
    slack_v = RANGE_SLACK * (info.max_voltage_v - info.min_voltage_v)
    if sample.voltage_v > info.max_voltage_v + slack_v:
        return Breach("the potentiostat's highest voltage", sample.voltage_v, info.max_voltage_v)
    if sample.voltage_v < info.min_voltage_v - slack_v:
        return Breach("the potentiostat's lowest voltage", sample.voltage_v, info.min_voltage_v)
    if abs(sample.current_ma) > info.max_current_ma * (1 + RANGE_SLACK):
        return Breach("the potentiostat's largest current", sample.current_ma, info.max_current_ma)
    return None


def stopped(sample: CellSample) -> Breach | None:
    """The limit by which the potentiostat says that it switched off by itself with this sample."""
    if not sample.stopped_by:
        return None
    value = sample.current_ma if "current" in sample.stopped_by else sample.voltage_v
    sentence = f"the potentiostat switched off by itself: {sample.stopped_by}"
    return Breach(sample.stopped_by.split()[0], value, math.nan, sentence)


def nearest_limit(sample: CellSample, limits: CellLimits) -> Breach | None:
    """The limit that `sample`, the last before a device switched off by itself, had all but reached; None when none."""
    window_v = limits.max_voltage_v - limits.min_voltage_v
    distances = (
        ("max_voltage_v", sample.voltage_v, (limits.max_voltage_v - sample.voltage_v) / window_v),
        ("min_voltage_v", sample.voltage_v, (sample.voltage_v - limits.min_voltage_v) / window_v),
        ("max_current_ma", sample.current_ma, 1 - abs(sample.current_ma) / limits.max_current_ma),
    )
    name, value, distance = min(distances, key=lambda entry: entry[2])
    if not distance <= NEAR_SHARE:
        return None
    bound = getattr(limits, name)
    return Breach(name, value, bound, f"the potentiostat switched off by itself at {name} = {bound:.6g}: {value:.6g}")


def tighten(configured: CellLimits, wanted: CellLimits | None) -> CellLimits:
    """The limits of an experiment: those it names, which may only be tighter, and the configured ones for the rest.

    Raises `ExperimentError` (OUTSIDE_LIMITS) naming the limit that would be wider.
    """
    if wanted is None:
        return configured
    named = {name: value for name in wanted.model_fields_set if (value := getattr(wanted, name)) is not None}
    for name, value in named.items():
        allowed = getattr(configured, name)
        if allowed is not None and (value > allowed if name in _UPPER else value < allowed):
            raise ExperimentError(
                ExperimentReason.OUTSIDE_LIMITS,
                f"limit {name} = {value:g} of the experiment is wider than the configured {allowed:g}",
            )
    tight = configured.model_copy(update=named)
    if tight.min_voltage_v >= tight.max_voltage_v:
        raise ExperimentError(
            ExperimentReason.OUTSIDE_LIMITS,
            f"limits min_voltage_v = {tight.min_voltage_v:g} and max_voltage_v = {tight.max_voltage_v:g} leave no room",
        )
    return tight


def check_set_voltage(voltage_v: float, limits: CellLimits, info: PotentiostatInfo | None) -> str | None:
    """Why a voltage cannot be held or aimed at, None when it can. A limit itself leaves no room for noise."""
    if voltage_v >= limits.max_voltage_v:
        return f"{voltage_v:g} V is not below the limit max_voltage_v = {limits.max_voltage_v:g} V"
    if voltage_v <= limits.min_voltage_v:
        return f"{voltage_v:g} V is not above the limit min_voltage_v = {limits.min_voltage_v:g} V"
    if info is not None and not info.min_voltage_v <= voltage_v <= info.max_voltage_v:
        return (
            f"{voltage_v:g} V is outside the potentiostat's range of "
            f"{info.min_voltage_v:g} V to {info.max_voltage_v:g} V"
        )
    return None


def check_set_current(current_ma: float, limits: CellLimits, info: PotentiostatInfo | None) -> str | None:
    """Why a current (either sign) cannot be driven, None when it can. A limit itself leaves no room for noise."""
    if abs(current_ma) >= limits.max_current_ma:
        return f"{abs(current_ma):g} mA is not below the limit max_current_ma = {limits.max_current_ma:g} mA"
    if info is not None and abs(current_ma) > info.max_current_ma:
        return f"{abs(current_ma):g} mA is more than the potentiostat's {info.max_current_ma:g} mA"
    return None
