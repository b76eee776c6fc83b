"""The live frame as a PNG: stretched to eight bits, particles drawn over it. Pure functions; called in threads."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from daemon.tables import PARTICLE_STATES

Overlay = Literal["none", "masks", "soc", "state"]

STRETCH_PERCENT = (0.5, 99.7)  # a few hot pixels must not darken the rest
SAMPLE_STRIDE = 4  # percentiles of every sixteenth pixel are the same to a grey level
FILL = 0.55
"""Share of the overlay's colour inside a particle; the rest is the frame."""
OUTLINE_COLOUR = (255, 196, 61)
UNKNOWN_COLOUR = (120, 124, 134)
STATE_COLOURS: dict[str, tuple[int, int, int]] = {
    "active": (64, 192, 132),
    "partial": (240, 180, 60),
    "dead": (226, 84, 84),
    "lost": (150, 120, 220),
}
VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121),
        (110, 206, 88), (181, 222, 43), (253, 231, 37),
    ],
    dtype=np.float64,
)  # fmt: skip
"""Ten evenly spaced stops of the viridis colour map: equal steps look equal, also to the colour-blind."""


@dataclass(frozen=True)
class Particles:
    """What is known of the particles at the frame's time; indices as in the masks."""

    labels: np.ndarray
    """(H, W) int32 in the reference frame: 0 background, i + 1 the particle at index i."""
    states: np.ndarray
    """(P,) indices into `PARTICLE_STATES`; -1 where unknown."""
    soc: np.ndarray
    """(P,) state of charge, NaN where unknown."""
    drift_y_px: float
    drift_x_px: float


def png(image: np.ndarray, overlay: Overlay, particles: Particles | None, scale: float) -> bytes:
    """The frame (H, W) as PNG; `overlay` other than `none` needs `particles`."""
    grey = stretched(image)
    picture = Image.fromarray(grey if overlay == "none" or particles is None else painted(grey, overlay, particles))
    if scale != 1.0:
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)  # type: ignore[arg-type]
    sink = io.BytesIO()
    picture.save(sink, "PNG", compress_level=1)  # the loopback is faster than the compressor
    return sink.getvalue()


def strip_png(looks: np.ndarray, scale: int = 4) -> bytes:
    """Looks (L, h, w) side by side as a PNG, all stretched alike, each pixel `scale` pixels wide."""
    low, high = np.percentile(looks, STRETCH_PERCENT)
    grey = np.rint(np.clip((looks - low) * (255.0 / max(high - low, 1.0)), 0, 255)).astype(np.uint8)
    apart = np.pad(grey, ((0, 0), (0, 0), (0, 1)))
    row = apart.transpose(1, 0, 2).reshape(looks.shape[1], -1)[:, :-1]
    sink = io.BytesIO()
    Image.fromarray(row.repeat(scale, axis=0).repeat(scale, axis=1)).save(sink, "PNG", compress_level=1)
    return sink.getvalue()


def stretched(image: np.ndarray) -> np.ndarray:
    """Eight bits between two percentiles of the frame; a constant frame is mid-grey."""
    low, high = np.percentile(image[::SAMPLE_STRIDE, ::SAMPLE_STRIDE], STRETCH_PERCENT)
    if high <= low:
        return np.full(image.shape, 128, np.uint8)
    levels = np.arange(int(image.max()) + 1, dtype=np.float32)
    table = np.clip((levels - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    return table[image]


def painted(grey: np.ndarray, overlay: Overlay, particles: Particles) -> np.ndarray:
    """The frame in colour with the particles drawn where the scene stands now, (H, W, 3) uint8."""
    labels = shifted(particles.labels, particles.drift_y_px, particles.drift_x_px)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    if overlay == "masks":
        colour[outlines(labels)] = OUTLINE_COLOUR
        return colour
    inside = labels > 0
    palette = soc_colours(particles.soc) if overlay == "soc" else state_colours(particles.states)
    fill = palette[labels[inside] - 1]
    colour[inside] = (FILL * fill + (1 - FILL) * colour[inside]).astype(np.uint8)
    edge = outlines(labels)
    colour[edge] = palette[labels[edge] - 1]
    return colour


def shifted(labels: np.ndarray, drift_y_px: float, drift_x_px: float) -> np.ndarray:
    """The labels moved by whole pixels; what comes in from outside is background."""
    moved = np.zeros_like(labels)
    height, width = labels.shape
    dy, dx = (round(drift) if np.isfinite(drift) else 0 for drift in (drift_y_px, drift_x_px))
    if abs(dy) < height and abs(dx) < width:
        moved[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = labels[
            max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)
        ]
    return moved


def outlines(labels: np.ndarray) -> np.ndarray:
    """Pixels of a particle that touch anything else, (H, W) bool."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return edge & (labels > 0)


def soc_colours(soc: np.ndarray) -> np.ndarray:
    """A colour for each state of charge, (P, 3) float: viridis from 0 to 1, grey where unknown."""
    known = np.isfinite(soc)
    place = np.clip(np.where(known, soc, 0.0), 0.0, 1.0) * (len(VIRIDIS) - 1)
    stops = np.arange(len(VIRIDIS))
    colours = np.stack([np.interp(place, stops, VIRIDIS[:, channel]) for channel in range(3)], axis=1)
    return np.where(known[:, None], colours, UNKNOWN_COLOUR)


def state_colours(states: np.ndarray) -> np.ndarray:
    """A colour for each particle state, (P, 3) float."""
    table = np.array([STATE_COLOURS[name] for name in PARTICLE_STATES] + [UNKNOWN_COLOUR], float)
    known = (states >= 0) & (states < len(PARTICLE_STATES))
    return table[np.where(known, states, len(PARTICLE_STATES))]
