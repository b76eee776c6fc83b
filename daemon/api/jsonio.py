"""JSON without NaN: what is not a finite number is written as `null`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

FLOAT32_DIGITS = 7  # float32 resolves 7.2 decimal digits; more would print noise


def dumps(value: Any) -> bytes:
    """UTF-8 JSON of plain values, arrays, dataclasses and pydantic models; NaN and infinities become `null`."""
    try:
        return to_json(value, inf_nan_mode="null", by_alias=True, fallback=_array)
    except PydanticSerializationError:  # keys that are no strings, text that is no UTF-8: rare, and slower in Python
        return _dumps_plain(value)


def _array(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return array_list(value)
    if isinstance(value, np.generic):
        return array_list(value.reshape(1))[0]
    raise TypeError(f"{type(value).__name__} has no JSON form")


def joined(pieces: Iterable[bytes]) -> bytes:
    """A JSON list of what is JSON already: threads that encode a large one piece by piece let others run between."""
    return b"[" + b",".join(pieces) + b"]"


def _dumps_plain(value: Any) -> bytes:
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def plain(value: Any) -> Any:
    """The same value out of dictionaries, lists, strings, finite numbers, booleans and None."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return array_list(value)
    if isinstance(value, np.generic):
        return plain(array_list(value.reshape(1))[0])
    if isinstance(value, BaseModel):
        return plain(value.model_dump(by_alias=True))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def array_list(values: np.ndarray) -> list[Any]:
    """The array as a list; float32 at its own precision, non-finite values as None."""
    if values.dtype.kind != "f":
        return values.tolist()
    finite = np.isfinite(values)
    exact = values.astype(np.float64)
    if values.dtype.itemsize <= 4:
        exact = _shortened(exact, finite)
    if finite.all():
        return exact.tolist()
    listed = exact.astype(object)
    listed[~finite] = None
    return listed.tolist()


def _shortened(values: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Rounded to `FLOAT32_DIGITS` significant decimal digits, so that 0.1 does not print as 0.10000000149."""
    magnitude = np.where(finite & (values != 0), np.abs(np.where(finite, values, 1)), 1)
    places = FLOAT32_DIGITS - 1 - np.floor(np.log10(magnitude))
    scale = 10.0 ** np.abs(places)
    return np.where(places >= 0, np.round(values * scale) / scale, np.round(values / scale) * scale)
