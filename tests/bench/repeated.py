"""The same particles over and over: operators of any size from one that was compiled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daemon.engine.operator import Operator
from kernels.lanes import SPAN_PX
from kernels.photometry import SUMS


def repeat(operator: Operator, chosen: np.ndarray) -> Operator:
    """An operator of the particles `chosen`, positions that may come more than once."""
    masks, mask_pointer = _gather(operator.mask_span, operator.mask_pointer // SPAN_PX, chosen)
    rings, ring_pointer = _gather(operator.ring_span, operator.ring_pointer // SPAN_PX, chosen)
    rows = (chosen[:, None] * SUMS + np.arange(SUMS)).reshape(-1)
    weights, weight_pointer = _gather(operator.weights, operator.weight_pointer, rows)
    moved = SPAN_PX * (mask_pointer[:-1] - operator.mask_pointer[chosen] // SPAN_PX)
    each = {
        name: getattr(operator, name)[chosen]
        for name in (
            "weight_scale", "weight_sums", "taylor", "shift_taylor", "reference_flux", "reference_bend",
            "layer_noise", "ring_count", "ring_taylor", "ring_level", "ring_poor", "box", "centre_uv",
            "reference_shift", "shift_noise",
        )
    }  # fmt: skip
    return replace(
        operator,
        mask_span=masks,
        mask_pointer=(SPAN_PX * mask_pointer).astype(np.int32),
        weights=weights,
        weight_first=(operator.weight_first[rows] + np.repeat(moved, SUMS)).astype(np.int32),
        weight_pointer=weight_pointer.astype(np.int32),
        ring_span=rings,
        ring_pointer=(SPAN_PX * ring_pointer).astype(np.int32),
        ring_weights=_gather(operator.ring_weights, operator.ring_pointer, chosen)[0],
        blend_pointer=np.zeros(len(chosen) + 1, np.int32),
        blend_index=operator.blend_index[:0],
        blend_share=operator.blend_share[:0],
        **each,
    )


def _gather(values: np.ndarray, pointer: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen groups of `values` one after another, and their pointer."""
    lengths = np.diff(pointer)[chosen]
    return (
        np.concatenate([values[pointer[i] : pointer[i + 1]] for i in chosen]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )
