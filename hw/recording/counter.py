"""The camera's own frame counter beside the frames: what it says of frames that were never recorded."""

from __future__ import annotations

import numpy as np

LARGEST_COUNT = 2.0**53  # beyond it doubles are no counter
ROOM = 2.0
"""Usual intervals that a lost frame may be shorter than: a jump for which the times have no room was no loss."""


def block_ids(
    counter: np.ndarray | None, frame_index: np.ndarray, t_s: np.ndarray | None, name: str, notes: list[str]
) -> np.ndarray:
    """(N,) int64 numbers by the camera's counter, rising by at least what `frame_index` (N,) rises.

    `counter` (N,) float64 as recorded, None when there is none: then the places in the file, which know of no loss. So
    too, with a note, when it holds no whole numbers or less than half of its steps are those of the places. Where it
    runs backwards, or jumps farther than the times `t_s` (N,; None: unknown) have room for, it began anew, and the
    numbers go on without a gap.
    """
    if counter is None or not len(frame_index):
        return frame_index
    if not (np.isfinite(counter).all() and (np.abs(counter) < LARGEST_COUNT).all() and (counter % 1 == 0).all()):
        notes.append(f"{name} holds no frame counter: frames that the camera lost are not known")
        return frame_index
    places = np.diff(frame_index)
    steps = np.diff(counter.astype(np.int64))
    if 2 * np.count_nonzero(steps == places) < len(steps):
        notes.append(f"{name} does not count the frames one by one: frames that the camera lost are not known")
        return frame_index
    lost = np.maximum(steps - places, 0)
    if t_s is not None and len(steps):
        interval = np.diff(t_s)
        usual = float(np.median(interval[steps == places] / places[steps == places]))
        lost[lost + places > ROOM * interval / usual] = 0
    restarts = int(np.count_nonzero(places + lost != steps))
    if restarts:
        notes.append(
            f"{name}, taken as the camera's frame counter, begins anew {restarts} times: losses there not known"
        )
    if lost.any():
        gaps = int(np.count_nonzero(lost))
        notes.append(f"{name} taken as the camera's frame counter: {int(lost.sum())} frames lost in {gaps} gaps")
    return int(counter[0]) + np.concatenate([[0], np.cumsum(places + lost)])
