"""Pictures inside a report: the reference frame, coloured masks over it, clips with a mask's outline."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from PIL import Image
from plotly.colors import get_colorscale, sample_colorscale

from daemon.api.picture import strip_png
from daemon.photometry.outlines import outline
from daemon.store.clips import StoredClip

MAX_SIDE_PX = 1200
"""Of the map; more than a screen shows."""
STRIP_WIDTH, STRIP_ZOOM = 900, 3
CLIP_SIDE = 180
"""Screen pixels of a clip."""
CLIP_MARGIN = 0.6  # of the particle's size around it: enough surroundings to judge the mask by
MIN_MARGIN_PX = 8
STRETCH_PERCENT = (0.5, 99.8)
LEVELS = 120
"""Colours of a scale in an overlay; two of each (inside, outline), one for unknown, and transparent fit a palette."""
INSIDE_ALPHA, OUTLINE_ALPHA = 150, 255
UNKNOWN = (138, 143, 152)
SCALE_BARS_UM = (50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5)


def grey(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8 between two percentiles of what is known; a constant image is mid-grey."""
    known = image[np.isfinite(image)]
    low, high = np.percentile(known, STRETCH_PERCENT) if len(known) else (0.0, 0.0)
    if high <= low:
        return np.full(image.shape, 128, np.uint8)
    return np.nan_to_num(np.clip((image - low) * (255.0 / (high - low)), 0, 255), nan=0.0).astype(np.uint8)


def reference_uri(reference: np.ndarray) -> str:
    """The reference frame as a data URI, at most `MAX_SIDE_PX` wide and high."""
    picture = Image.fromarray(grey(np.asarray(reference, float)))
    shrink = max(1.0, max(picture.size) / MAX_SIDE_PX)
    size = (max(1, round(picture.width / shrink)), max(1, round(picture.height / shrink)))
    return _uri(picture.resize(size, Image.Resampling.BOX), "JPEG", quality=85)


def overlay_uri(labels: np.ndarray, place: np.ndarray, colours: np.ndarray) -> str:
    """Masks in colour, transparent elsewhere, as a data URI.

    (P,) `place` in 0..1 picks from the (K, 3) `colours`, K at most `LEVELS`; NaN is grey.
    """
    step = max(1, -(-max(labels.shape) // MAX_SIDE_PX))
    small = labels[::step, ::step]
    level = np.round(np.clip(np.nan_to_num(place), 0, 1) * (len(colours) - 1))
    table = np.concatenate([[0], 1 + np.where(np.isfinite(place), level, LEVELS)]).astype(np.uint8)
    pixels = table[np.where(small <= len(place), small, 0)]
    edge = _edges(small)
    pixels[edge] += LEVELS + 1
    picture = Image.fromarray(pixels)
    palette = np.zeros((LEVELS + 1, 3), np.uint8)
    palette[: len(colours)], palette[LEVELS] = colours, UNKNOWN
    picture.putpalette(np.vstack([[(0, 0, 0)], palette, palette]).astype(np.uint8).tobytes())
    alpha = bytes([0, *([INSIDE_ALPHA] * (LEVELS + 1)), *([OUTLINE_ALPHA] * (LEVELS + 1))])
    return _uri(picture, "PNG", transparency=alpha)


def scale_colours(scale: str) -> np.ndarray:
    """(`LEVELS`, 3) colours of a plotly colour scale."""
    found = sample_colorscale(get_colorscale(scale), np.linspace(0, 1, LEVELS).tolist(), colortype="tuple")
    return np.round(255 * np.array(found)).astype(int)


def clip_html(reference: np.ndarray, labels: np.ndarray, index: int, pixel_um: float, caption: str) -> str:
    """A particle cut from the reference frame with its mask's outline and a scale bar; empty when it has no mask."""
    rows, columns = np.nonzero(labels == index + 1)
    if not len(rows):
        return ""
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    half = size / 2 + max(CLIP_MARGIN * size, MIN_MARGIN_PX)
    top, left = (max(0, int(np.ptp(each) / 2 + each.min() - half)) for each in (rows, columns))
    window = (slice(top, top + round(2 * half)), slice(left, left + round(2 * half)))
    piece, mine = reference[window], labels[window] == index + 1
    height, width = piece.shape
    zoom = CLIP_SIDE / max(height, width)
    others = (labels[window] > 0) & ~mine
    shapes = [_path(mine, "#E69F00", 2.0)] + ([_dots(others)] if others.any() else [])
    bar = _scale_bar(width, height, pixel_um)
    picture = _uri(Image.fromarray(grey(np.asarray(piece, float))), "PNG")
    box = f'width="{zoom * width:.0f}" height="{zoom * height:.0f}"'
    return (
        f'<figure><div class="clip"><img {box} src="{picture}" alt="{escape(caption, True)}">'
        f'<svg {box} viewBox="-0.5 -0.5 {width} {height}">{"".join(shapes)}{bar}</svg></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def strip_html(clip: StoredClip, at: str) -> str:
    """The looks of a stored clip side by side, all stretched alike."""
    looks, _, width = clip.pixels.shape
    zoom = int(np.clip(STRIP_WIDTH // max(looks * (width + 1), 1), 1, STRIP_ZOOM))
    uri = "data:image/png;base64," + base64.b64encode(strip_png(clip.pixels, zoom)).decode()
    times = ", ".join(f"{t:+.3g}" for t in (clip.t_s - clip.t_s[0]).tolist())
    caption = f"Raw pixels around its step: looks at {times} s from {at} on."
    return f'<figure><img src="{uri}" alt="{escape(caption, True)}"><figcaption>{escape(caption)}</figcaption></figure>'


def _path(mask: np.ndarray, colour: str, width: float) -> str:
    corners = " ".join(f"{x:g},{y:g}" for y, x in outline(mask))
    return (
        f'<polygon points="{corners}" fill="none" stroke="{colour}" stroke-width="{width}"'
        ' vector-effect="non-scaling-stroke"/>'
    )


def _dots(mask: np.ndarray) -> str:
    """Other particles' outlines, thin: a dot on each pixel of their edge."""
    edge = _edges(mask.astype(int))
    dots = "".join(f"M{x} {y}h0" for y, x in np.argwhere(edge).tolist())
    style = 'stroke="#56B4E9" stroke-width="2" stroke-linecap="round" vector-effect="non-scaling-stroke"'
    return f'<path d="{dots}" {style}/>'


def _scale_bar(width: int, height: int, pixel_um: float) -> str:
    if not np.isfinite(pixel_um):
        return ""
    fitting = [length for length in SCALE_BARS_UM if length / pixel_um <= 0.5 * width]
    if not fitting:
        return ""
    long_px, x, y = fitting[0] / pixel_um, 0.05 * width, 0.95 * height
    text = f'font-size="{0.09 * height:.2f}" fill="white"'
    return (
        f'<line x1="{x:.2f}" y1="{y:.2f}" x2="{x + long_px:.2f}" y2="{y:.2f}" stroke="white" stroke-width="3"'
        f' vector-effect="non-scaling-stroke"/>'
        f'<text x="{x:.2f}" y="{y - 0.02 * height:.2f}" {text}>{fitting[0]:g} µm</text>'
    )


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels of a particle that touch anything else, (H, W) bool."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (labels > 0)


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    sink = io.BytesIO()
    picture.save(sink, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(sink.getvalue()).decode()}"
