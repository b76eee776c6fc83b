"""Slow and obvious twin of `kernels.transfer`."""

import numpy as np


def naive_respond(frames, common):
    """Regression sums of (N, M) frames on (N,) `common`: by successive differences, and by levels over the first."""
    frames, common = np.asarray(frames, float), np.asarray(common, float)
    by_step = np.diff(common) @ np.diff(frames, axis=0)
    by_level = (common - common[0]) @ (frames - common[0])
    return by_step, by_level
