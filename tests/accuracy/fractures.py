"""Cracks among avalanches, steps and everything an instrument does by itself, pixel by pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.engine.measures import MaskSet
from daemon.events import Event
from daemon.photometry.science import Science, ScienceSettings
from tests.accuracy.cracking import (
    AVALANCHE,
    CRACK,
    HEIGHT,
    PARTICLES,
    RATE_HZ,
    WHOLE,
    Bubble,
    Change,
    Script,
    Theatre,
)
from tests.accuracy.effort import Effort
from tests.accuracy.identity import Kept, fragments_right, kept_through, through_edits
from tests.bench.figures import Figure, at_least, at_most

TITLE = "Cracks"
INTRO = """\
Scenes of 14 particles of 6 to 12 px radius at 50 frames/s that brighten by 6 to 14 % and fade again, drifting by 0.1
px rms under a lamp that wanders. In the first kind of scene nine particles crack: one piece moves by 0.2 to 1 px, a
line of 1 to 2 px between them darkens, all of it darkens by 3 to 25 % together. The others make steps of 3 to 12 %: all
of the particle, or a band of it. Meanwhile the focus jumps, the lamp steps by 1 to 3 %, the scene leaps by 1.4 to 2 px,
frames are lost, and bubbles of 25 to 60 px radius pass; changes keep half a second off these. In the second kind all of
this goes on and no particle cracks. In the third, without disturbances, all crack: a third of them open for good, a
third with a line that fades after 6 to 16 s, a third with a piece that follows no more from then on.

An id is kept when the mask, where it has drifted to, and the true outline of its particle share more than half of what
they cover, no other particle's shares more. Rows of fragments must name the right parent, lie nearer to the true
fragment that does what they say, and have ids of their own. Then scenes that drift by 6 to 10 px, in which 11 of 14
particles crack and fragments move on apart: three masks are replaced by what is there by then, one is removed, one
removed and added again, in the running pipeline. At the end each particle brightens alone, and its id must see it."""
WITHIN_S = 0.3
FRAMES = 1500
AFTERWARDS = ("crack_closed", "fragment", "disconnected")


@dataclass
class Score:
    """Counts of one scene."""

    cracks: int = 0
    found: int = 0
    told: int = 0
    true: int = 0
    steps: int = 0
    steps_found: int = 0
    late: int = 0
    hours: float = 0.0
    size_error: list[float] = field(default_factory=list)
    radii: list[tuple[float, float, float]] = field(default_factory=list)
    """px, of bubbles that passed by themselves: true, told, and its standard deviation."""
    remarks: list[str] = field(default_factory=list)


def run(effort: Effort) -> list[Figure]:
    """Precision, recall, false cracks; what becomes of cracked particles."""
    scores = [scene(seed, FRAMES, cracks=True) for seed in effort.seeds]
    calm = [scene(seed + 500, FRAMES, cracks=False) for seed in effort.seeds]
    every = [*scores, *calm]
    told, cracks, steps = total(every, "told"), total(scores, "cracks"), total(every, "steps")
    hours = sum(score.hours for score in calm)
    sizes = np.concatenate([score.size_error for score in scores])
    return [
        at_least("precision of `crack`", total(every, "true") / max(told, 1), 0.95, digits=3),
        at_least(f"recall of {cracks} cracks", total(scores, "found") / cracks, 0.9, digits=3),
        at_most("  told later than a second after the onset", total(scores, "late"), 0, digits=0),
        at_most("  error of the size, median", 100 * float(np.median(sizes)), 5.0, "%", digits=1),
        Figure(f"false cracks in {hours:.1f} particle-hours of disturbances alone", str(total(calm, "told")), ""),
        at_least(f"recall of {steps} other steps as `step`", total(every, "steps_found") / steps, 0.9, digits=3),
        *_bubbles(every),
        *_afterwards(effort),
    ]


def _bubbles(scores: list[Score]) -> list[Figure]:
    """Radii of bubbles, where they are told."""
    radii = np.array([row for score in scores for row in score.radii]).reshape(-1, 3)
    true, told, sigma = radii[np.isfinite(radii[:, 1])].T
    if not len(true):
        return []
    return [
        Figure(f"radius of bubbles that pass alone, told of {len(radii)}", str(len(true)), ""),
        Figure("  error, median", f"{100 * np.median(np.abs(told / true - 1)):.0f} %", ""),
        Figure("  within two standard deviations", f"{100 * np.mean(np.abs(told - true) < 2 * sigma):.0f} %", ""),
    ]


def _afterwards(effort: Effort) -> list[Figure]:
    """Lines that fade and pieces that stop, told and told wrongly; whose ids the particles have then."""
    counts: Counter[str] = Counter()
    particles, fragments = Kept(), Kept()
    for seed in effort.aftermath_seeds:
        found, kept, rows = aftermath(seed)
        counts, particles, fragments = counts + found, particles + kept, fragments + rows
    figures = []
    for kind in AFTERWARDS:
        wanted, wrong = counts[f"{kind} wanted"], counts[f"{kind} wrong"]
        figures.append(Figure(f"`{kind}` told of {wanted}", str(counts[f"{kind} told"]), ""))
        figures.append(Figure(f"  told of {counts['cracks'] - wanted} others", str(wrong), ""))
    return [*figures, *_identities(effort, particles, fragments)]


def _identities(effort: Effort, particles: Kept, fragments: Kept) -> list[Figure]:
    """Ids of cracked particles and their fragments, and those after edits of the masks."""
    edited = [through_edits(seed) for seed in effort.seeds]
    near, far, parents = (sum((getattr(one, name) for one in edited), Kept()) for name in ("near", "far", "parents"))
    every = particles + fragments + near
    return [
        _kept(f"identity kept by {every.ids} ids after cracks and edits", every),
        _kept(f"  by {particles.ids} cracked particles", particles),
        _kept(f"  by {fragments.ids} rows of fragments: parent, place, state", fragments),
        _kept(f"  by {near.ids} ids after edits of masks, fragments up to 2 px apart", near),
        Figure(f"  by {far.ids} others, fragments 1.2 to 4 px apart", f"{far.percent:.1f} %", ""),
        _kept(f"  `parent_id` right after edits, of {parents.ids}", parents),
    ]


def _kept(name: str, kept: Kept) -> Figure:
    return at_least(name, kept.percent, 98.0, "%", digits=1)


def aftermath(seed: int) -> tuple[Counter[str], Kept, Kept]:
    """One scene in which all particles crack: what was told of them later, the ids of particles, those of fragments."""
    rng, frames, script = np.random.default_rng([seed, 57]), 4 * FRAMES // 3, Script([])
    for index in range(PARTICLES):
        frame = int(rng.integers(250, 900))
        faded = int(frame + rng.integers(300, 800)) if index % 3 == 0 else None
        script.changes.append(Change(index, frame, CRACK, -float(rng.uniform(0.05, 0.25)), faded, index % 3 == 1))
    theatre = Theatre(seed, script, frames)
    events, rows, drift_px = told_of(theatre)
    counts = Counter(cracks=PARTICLES)
    for change in script.changes:
        place = np.flatnonzero(theatre.subject.which == change.index)
        told = {event.kind.value for event in events if len(place) and event.particle_id == place[0] + 1}
        for kind, true in zip(AFTERWARDS, (change.faded_frame is not None, change.cut, change.cut), strict=True):
            counts[f"{kind} wanted"] += true
            counts[f"{kind} {'told' if true else 'wrong'}"] += kind in told
    last = frames - 1
    return counts, kept_through(theatre, drift_px, last), fragments_right(theatre, rows, drift_px, last)


def total(scores: Iterable[Score], name: str) -> int:
    """Sum of a count."""
    return sum(getattr(score, name) for score in scores)


def scene(seed: int, frames: int, *, cracks: bool) -> Score:
    """One scene's events beside its truth."""
    rng = np.random.default_rng([seed, 53])
    script = written(rng, frames, cracks=cracks)
    theatre = Theatre(seed, script, frames)
    return scored(script, theatre, events_of(theatre), frames)


def written(rng: np.random.Generator, frames: int, *, cracks: bool, clear: bool = True) -> Script:
    """A script with all disturbances; changes keep half a second off them, and off bubbles when `clear`."""
    script = Script([])
    quiet = np.ones(frames, bool)
    quiet[:150] = quiet[-75:] = False
    for _ in range(3 * frames // 1500):
        for known, value in (
            (script.focus, rng.uniform(0.4, 0.7) ** 2 + 2 * 1.5 * rng.uniform(0.0, 0.2)),
            (script.lamp, 1 + rng.choice([-1, 1]) * rng.uniform(0.01, 0.03)),
            (script.drift, tuple(rng.uniform(1.0, 1.5, 2) * rng.choice([-1, 1], 2))),
        ):
            at, back = rng.integers(150, frames - 200), rng.integers(30, 100)
            known[int(at)], known[int(at + back)] = (
                value,
                (1.0 if known is script.lamp else 0.0 if known is script.focus else (0.0, 0.0)),
            )
            quiet[[at, at + back]] = False
        first = int(rng.integers(150, frames - 100))
        script.lost.append((first, int(rng.integers(3, 40))))
        quiet[first - 2 : first + 42] = False
        script.bubbles.append(bubble(rng, int(rng.integers(150, frames - 150))))
        under = [k for k in range(frames) if script.bubbles[-1].shade(k) is not None]
        quiet[under] &= not clear
    free = np.flatnonzero(np.convolve(~quiet, np.ones(2 * 25 + 1), "same") == 0)
    for index in range(PARTICLES):
        kind = [CRACK, CRACK, AVALANCHE, CRACK, WHOLE][index % 5] if cracks else [AVALANCHE, WHOLE][index % 2]
        size = -rng.uniform(0.03, 0.25) if kind == CRACK else rng.choice([-1.0, 1.0]) * rng.uniform(0.03, 0.12)
        script.changes.append(Change(index, int(rng.choice(free)), kind, float(size), cut=bool(rng.random() < 0.3)))
    return script  # fmt: skip


def bubble(rng: np.random.Generator, frame: int) -> Bubble:
    """One that enters from the left and crosses in half a second to some seconds."""
    radius, speed = rng.uniform(25, 60), rng.uniform(1.5, 12.0)
    return Bubble(
        frame,
        radius,
        rng.uniform(20, HEIGHT - 20),
        -radius - 8,
        (rng.uniform(-0.3, 0.3) * speed, speed),
        rng.uniform(0.03, 0.2),
    )


def events_of(theatre: Theatre) -> list[Event]:
    """All events of the scene; particle i of the masks has the id i + 1."""
    return told_of(theatre)[0]


def told_of(theatre: Theatre) -> tuple[list[Event], list[dict[str, Any]], np.ndarray]:
    """Events, rows of fragments, and the drift (2,) measured at the end."""
    labels = theatre.subject.labels
    area = np.bincount(labels.ravel())[1:].astype(float)
    rows, columns = np.indices(labels.shape)
    y, x = (np.bincount(labels.ravel(), place.ravel())[1:] / area for place in (rows, columns))
    science = Science(
        MaskSet(labels, np.arange(1, len(area) + 1), y, x, {"area_px": area}, 1.5, None), ScienceSettings()
    )
    batches = theatre.measured()
    events = [event for batch in batches for event in science.add(batch).events]
    last, end = batches[-1], science.finish()
    return events + end.events, end.fragments, np.array([last.drift_y_px[-1], last.drift_x_px[-1]])


def radii_of(script: Script, events: list[Event], frames: int) -> list[tuple[float, float, float]]:
    """True and told radius, with its sigma, of each `bubble` in whose time one alone was in the field."""
    under = np.array([[each.shade(frame) is not None for frame in range(frames)] for each in script.bubbles])
    found = []
    for event in (event for event in events if event.kind == "bubble"):
        first, last = (
            int(np.clip(t_s * RATE_HZ, 0, frames - 1)) for t_s in (event.t_s - 0.5, event.detected_t_s - 2.0)
        )
        passing = np.flatnonzero(under[:, first : last + 1].any(axis=1))
        if len(passing) == 1:
            found.append((script.bubbles[passing[0]].radius_px, event.magnitude, event.magnitude_sigma))
    return found


def scored(script: Script, theatre: Theatre, events: list[Event], frames: int) -> Score:
    """Match events and changes of the same particle."""
    score = Score(hours=frames / RATE_HZ * PARTICLES / 3600.0)
    own = [event for event in events if event.kind in ("crack", "step")]
    used = set()
    for change in script.changes:
        place = np.flatnonzero(theatre.subject.which == change.index)
        near = [
            k for k, e in enumerate(own)
            if len(place) and e.particle_id == place[0] + 1 and abs(e.t_s - change.frame / RATE_HZ) <= WITHIN_S
        ]  # fmt: skip
        used.update(near)
        kinds = [own[k].kind.value for k in near]
        if change.kind == CRACK:
            score.cracks += 1
            score.found += "crack" in kinds
            score.true += "crack" in kinds
            score.late += any(own[k].kind == "crack" and own[k].detected_t_s - own[k].t_s > 1.0 for k in near)
            true = change.size * theatre.brightness(change.index, change.frame)  # of F0, as contrasts are
            score.size_error += [abs(own[k].magnitude / true - 1) for k in near]
        else:
            score.steps += 1
            score.steps_found += "step" in kinds
        if (CRACK if change.kind == CRACK else "step") not in kinds or len(kinds) > 1:
            score.remarks.append(f"{change} at {change.frame / RATE_HZ:.2f} s: {kinds}")
    score.radii = radii_of(script, events, frames)
    score.told = sum(event.kind == "crack" for event in own)
    score.remarks += [
        f"extra {e.kind} of {e.particle_id} at {e.t_s:.2f} s: {e.magnitude:.4f}"
        for k, e in enumerate(own)
        if k not in used
    ]
    return score  # fmt: skip
