"""False cracks in thousands of particle-hours in which an instrument does all it does, and nothing cracks."""

from __future__ import annotations

from collections import Counter

from daemon.photometry.science import Science, ScienceSettings
from tests.accuracy.effort import Effort
from tests.accuracy.watching import Field
from tests.bench.figures import Figure, at_most

TITLE = "Long watch"
INTRO = """\
Measures of 1000 particles (400 in short) at 10 frames/s, made without frames and without the simulated instrument
(`tests/accuracy/watching.py`): a dozen blurred particles of 5 to 11 px radius, whose parts' answers to brightness, a
gradient, shift, blur and uneven light are rendered once; each part's counts are Poisson's. They charge and discharge,
each at its own pace, by 6 to 25 %. Each about every four minutes: the lamp steps by 0.2 to 3 %, the focus jumps, the
scene leaps by 0.2 to 2 px, all of which leave some per cent of themselves behind. The exposure changes every quarter of
an hour, by up to a factor of two; frames are lost every minute; every two and a half minutes a bubble of 20 to 120 px
radius with a dark rim crosses at 10 to 800 px/s, or grows and floats off. Backgrounds follow half of the rings late.
No particle cracks: every `crack` is false. The upper bound is Poisson's for the count."""
RATE_HZ = 10.0
KINDS = ("crack", "crack_closed", "fragment", "disconnected")


def run(effort: Effort) -> list[Figure]:
    """False events an hour."""
    particles, seconds = (1000, 2400.0) if effort.static_frames > 300 else (400, 600.0)
    told: Counter[str] = Counter()
    hours = 0.0
    for seed in effort.seeds:
        field = Field(seed, particles, seconds, RATE_HZ)
        told += false_events(field)
        hours += field.hours
    rate = 1000 * told["crack"] / hours
    return [
        at_most(f"false cracks a 1000 particle-hours, {told['crack']} in {hours:.0f}", rate, 1.0),
        Figure("  upper 95 % bound", f"{1000 * upper_bound(told['crack']) / hours:.2f}", ""),
        *(Figure(f"  `{kind}`", str(told[kind]), "") for kind in KINDS[1:]),
        Figure("  `bubble` told", str(told["bubble"]), ""),
    ]


def upper_bound(count: int, share: float = 0.95) -> float:
    """Of the mean of a Poisson count, one-sided (Garwood 1936)."""
    from scipy.stats import chi2

    return float(chi2.ppf(share, 2 * (count + 1)) / 2)


def false_events(field: Field) -> Counter[str]:
    """How many events of each kind the product tells of a night."""
    science = Science(field.masks, ScienceSettings())
    events = [event.kind.value for batch in field.measured() for event in science.add(batch).events]
    return Counter(events + [event.kind.value for event in science.finish().events])
