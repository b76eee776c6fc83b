"""Whether an id still means the same particle: after cracks, while fragments and scene drift, after edits of masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from daemon.engine.measures import MaskSet, kept_columns
from daemon.engine.pipeline import Pipeline, PipelineSettings
from daemon.mask_edits import EDITS
from daemon.photometry.noise import NoiseHints
from daemon.photometry.outlines import outlines_of
from daemon.recipe import MaskSettings
from daemon.runs.prepare import Reference, edit
from hw.camera.contract import FrameStamp
from tests.accuracy.cracking import CRACK, PARTICLES, RATE_HZ, Change, Script, Theatre
from tests.accuracy.subject import REFERENCE_EXPOSURES
from tests.disturbed import PIXEL_NM

OVERLAP = 0.5
"""Of two outlines: what they share over all that either covers."""
EDIT_FRAME, BLINKS_FROM, BLINK_FRAMES, GLOW = 420, 480, 3, 1.3
FAR_PX = 1.0
"""Beyond the first 0.2 to 1 px."""
FRAMES = BLINKS_FROM + 2 * BLINK_FRAMES * PARTICLES


@dataclass
class Kept:
    """How many ids there were, and how many meant what they should."""

    ids: int = 0
    right: int = 0

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.ids + other.ids, self.right + other.right)

    @property
    def percent(self) -> float:
        """NaN without ids."""
        return 100.0 * self.right / self.ids if self.ids else float("nan")


def true_outline(theatre: Theatre, index: int, frame: int) -> np.ndarray:
    """(H, W) bool of a particle and its fragments, where they are in that frame; dark lines belong to it."""
    live, dead = theatre.pieces(index, frame)
    light = live if dead is None else live + dead
    return ndimage.binary_closing(light > 0.5 * np.quantile(light[light > 0], 0.8), iterations=2)


def overlaps(labels: np.ndarray, drift_px: np.ndarray, truths: list[np.ndarray]) -> np.ndarray:
    """(labels, truths) shared over covered, the labels moved by the drift that the product measured."""
    shares = np.zeros((labels.max(), len(truths)))
    for k in range(len(shares)):
        mask = ndimage.shift((labels == k + 1).astype(float), drift_px, order=1) > 0.5
        shares[k] = [(mask & true).sum() / max((mask | true).sum(), 1) for true in truths]
    return shares


def kept_through(theatre: Theatre, drift_px: np.ndarray, frame: int) -> Kept:
    """Ids that a scene's masks gave, each against the particle it was found on."""
    truths = [true_outline(theatre, index, frame) for index in range(PARTICLES)]
    shares, which = overlaps(theatre.subject.labels, drift_px, truths), theatre.subject.which
    known = np.flatnonzero(which >= 0)
    right = (shares[known].argmax(axis=1) == which[known]) & (shares[known, which[known]] > OVERLAP)
    return Kept(len(known), int(right.sum()))


def fragments_right(theatre: Theatre, rows: list[dict[str, Any]], drift_px: np.ndarray, frame: int) -> Kept:
    """Rows of fragments whose parent has parted and whose place is nearer to the true fragment that does the same."""
    ids, right = [row["particle_id"] for row in rows], 0
    for row in rows:
        index = int(theatre.subject.which[row["parent_id"] - 1])
        live, dead = theatre.pieces(index, frame) if index >= 0 else (None, None)
        if live is None or dead is None or ids.count(row["particle_id"]) > 1 or row["particle_id"] <= PARTICLES:
            continue
        place = np.array([row["y_px"], row["x_px"]]) + drift_px
        far = [np.hypot(*(place - ndimage.center_of_mass(piece))) for piece in (live, dead)]
        right += (far[1] < far[0]) == (row["state"] == "dead")
    return Kept(len(rows), right)


@dataclass
class Edited:
    """Ids after edits, by what became of their particles; `parents` counts those whose `parent_id` is right."""

    near: Kept
    far: Kept
    """Of particles whose fragments went on moving apart by more than `FAR_PX`."""
    parents: Kept


def through_edits(seed: int) -> Edited:
    """A drifting scene whose particles crack and part; then some masks are removed, replaced, added.

    At the end each particle brightens once, by itself. An id is right when its mask lies on its particle and its flux
    saw that brighten, more than any other.
    """
    rng = np.random.default_rng([seed, 61])
    theatre = _parting(seed, rng)
    subject = theatre.subject
    masks = subject.prepared.masks
    pipeline = Pipeline(subject.operator, PipelineSettings(12, RATE_HZ, 1.0))
    expected = {int(masks.particle_id[k]): (int(subject.which[k]), 0) for k in range(masks.count)}
    fluxes: list[np.ndarray] = []
    drift_px = np.zeros(2)
    for frame in range(FRAMES):
        if frame == EDIT_FRAME:
            pipeline.take()
            after, operator = _edited(theatre, masks, drift_px, rng, expected)
            pipeline = pipeline.with_masks(operator, kept_columns(masks, after), 2)
            masks = after
        blinking = (frame - BLINKS_FROM) // BLINK_FRAMES
        theatre.glow[:] = 1.0
        if blinking >= 0 and blinking % 2:
            theatre.glow[blinking // 2] = GLOW
        pipeline.add(subject.expose(theatre.mean_e(frame)), FrameStamp(frame, frame / RATE_HZ, frame / RATE_HZ))
        if len(pipeline) == BLINK_FRAMES and (batch := pipeline.take()) is not None:
            drift_px = np.array([batch.drift_y_px[-1], batch.drift_x_px[-1]])
            if blinking >= 0:
                fluxes.append(batch.spread(masks).flux_e.mean(axis=0))
    theatre.glow[:] = 1.0
    return _judged(theatre, masks, np.array(fluxes), drift_px, expected)


def _parting(seed: int, rng: np.random.Generator) -> Theatre:
    script, way = Script([]), rng.uniform(4.0, 7.0, 2) * rng.choice([-1, 1], 2)
    script.drift.update({frame: tuple(way * frame / FRAMES) for frame in range(0, FRAMES, 2)})
    for index in range(PARTICLES):
        if index % 4 != 3:
            low, high = (FAR_PX, 3.0) if index % 4 == 1 else (0.0, FAR_PX)
            size, apart_px = -float(rng.uniform(0.03, 0.25)), float(rng.uniform(low, high))
            frame = int(rng.integers(120, 250))
            script.changes.append(Change(index, frame, CRACK, size, cut=index % 2 == 0, apart_px=apart_px))
    return Theatre(seed, script, FRAMES)


def _edited(
    theatre: Theatre, masks: MaskSet, drift_px: np.ndarray, rng: np.random.Generator, expected: dict
) -> tuple[MaskSet, Any]:
    """Of five found particles: three outlined anew as they are now, one taken out, one taken out and added again."""
    subject = theatre.subject
    chosen = rng.choice(np.flatnonzero(subject.which >= 0), 5, replace=False)
    edits: list[dict[str, Any]] = []
    for place, column in enumerate(chosen.tolist()):
        particle_id, true = int(masks.particle_id[column]), int(subject.which[column])
        now = ndimage.shift(true_outline(theatre, true, EDIT_FRAME).astype(float), -drift_px, order=1) > 0.5
        around = ndimage.binary_closing(now, iterations=4)
        outline_px = outlines_of(around.astype(np.int32))[1]
        del expected[particle_id]
        if place < 3:
            edits.append({"action": "replace", "particle_id": particle_id, "outline_px": outline_px})
            expected[-len(edits)] = (true, particle_id)
            continue
        edits.append({"action": "remove", "particle_id": particle_id})
        if place == 4:
            edits.append({"action": "add", "outline_px": outline_px})
            expected[-len(edits)] = (true, 0)
    camera = subject.expose
    hints = NoiseHints(camera.gain_e_per_dn, camera.read_noise_e, camera.dark_dn)
    reference = Reference(
        subject.reference_dn, np.zeros_like(subject.reference_dn), REFERENCE_EXPOSURES, 12, hints, PIXEL_NM
    )
    noise = subject.prepared.noise
    prepared, made = edit(reference, masks, noise, np.zeros(0, np.int32), EDITS.validate_python(edits), MaskSettings())
    for place, particle_id in enumerate(made):
        if particle_id is not None:
            assert particle_id not in expected, "an id was given twice"
            expected[particle_id] = expected.pop(-place - 1)
    return prepared.masks, prepared.operator


def _judged(theatre: Theatre, masks: MaskSet, fluxes: np.ndarray, drift_px: np.ndarray, expected: dict) -> Edited:
    """`fluxes` (2 PARTICLES, P): before each particle brightens, and while it does."""
    truths = [true_outline(theatre, index, FRAMES - 1) for index in range(PARTICLES)]
    shares = overlaps(masks.labels, drift_px, truths)
    rise = fluxes[1::2] / fluxes[::2] - 1.0
    assert masks.parent_id is not None
    far = {change.index for change in theatre.script.changes if change.apart_px > FAR_PX}
    found = Edited(Kept(), Kept(), Kept())
    for column in masks.positions.tolist():
        particle_id = int(masks.particle_id[column])
        true, parent_id = expected.get(particle_id, (-1, 0))
        if true < 0:
            continue  # of no particle of the scene
        mine = shares[column].argmax() == true and shares[column, true] > OVERLAP
        saw = int(rise[:, column].argmax()) == true and rise[true, column] > 0.5 * (GLOW - 1.0)
        kept = Kept(1, int(mine and saw))
        found.near, found.far = (found.near, found.far + kept) if true in far else (found.near + kept, found.far)
        found.parents += Kept(1, int(masks.parent_id[column] == parent_id))
    return found
