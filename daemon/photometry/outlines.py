"""Outlines of masks as polygons: corners between pixels, so that drawing one gives exactly its pixels again."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy import ndimage

Corner = tuple[float, float]


def outlines_of(labels: np.ndarray) -> dict[int, list[list[float]]]:
    """For each label of the (H, W) image its outer outline: [y, x] corners in pixels, the label inside on the right."""
    boxes = ndimage.find_objects(labels)
    return {
        i + 1: [[y + box[0].start, x + box[1].start] for y, x in outline(labels[box] == i + 1)]
        for i, box in enumerate(boxes)
        if box is not None
    }


def outline(mask: np.ndarray) -> list[Corner]:
    """The outer outline of one (H, W) bool mask in one piece (pixels may touch at corners), clockwise on the screen.

    Coordinates are those of pixel centres, so corners lie at halves.
    """
    ends = _edges(np.pad(mask, 1))
    here = start = min(ends)
    step = (0, 1)
    path: list[Corner] = []
    while True:
        there = _turn(here, step, ends[here])
        ends[here].remove(there)
        direction = (there[0] - here[0], there[1] - here[1])
        if direction != step or not path:
            path.append((here[0] - 1.5, here[1] - 1.5))
        here, step = there, direction
        if here == start:
            return path


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Unit edges around the mask by the corner they start from; corner (y, x) is the upper left one of a pixel."""
    ends: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for (dy, dx), first, last in (((-1, 0), (0, 0), (0, 1)), ((0, 1), (0, 1), (1, 1)),
                                  ((1, 0), (1, 1), (1, 0)), ((0, -1), (1, 0), (0, 0))):  # fmt: skip
        border = mask & ~np.roll(mask, (-dy, -dx), (0, 1))
        for y, x in np.argwhere(border).tolist():
            ends[y + first[0], x + first[1]].append((y + last[0], x + last[1]))
    return ends


def _turn(here: tuple[int, int], step: tuple[int, int], ends: list[tuple[int, int]]) -> tuple[int, int]:
    """Where two pixels touch at a corner the path turns left, over to the other one: one outline goes around both."""
    left = (here[0] - step[1], here[1] + step[0])
    return left if len(ends) > 1 and left in ends else ends[0]
