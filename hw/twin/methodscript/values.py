"""Values as the device writes them: kind, seven hexadecimal digits, the power that keeps most digits, metadata."""

from __future__ import annotations

import math

OFFSET = 1 << 27
LETTERS = "afpnum kMGTPE"
"""Powers of ten from -18 in steps of three."""


def encode(kind: str, number: float | int, metadata: str = "") -> str:
    """One value of a data package; `number` an int for one of the language's whole numbers."""
    if isinstance(number, int):
        return f"{kind}{_digits(max(-OFFSET, min(OFFSET - 1, number)))}i{metadata}"
    if math.isnan(number):
        return f"{kind}     nan{metadata}"
    for place, letter in enumerate(LETTERS):
        power = 3 * place - 18
        whole = round(number / 10**power) if power >= 0 else round(number * 10**-power)
        if -OFFSET <= whole < OFFSET:
            return f"{kind}{_digits(whole)}{letter}{metadata}"
    return f"{kind}     nan{metadata}"


def _digits(whole: int) -> str:
    return f"{whole + OFFSET:07X}"
