"""Keeping the C library's heap small: this runs for months beside others on a small computer."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8  # from malloc.h
ARENAS = 2  # threads here share their buffers; an arena each would keep tens of megabytes for nothing


def limit_arenas() -> None:
    """Call once, before threads start. Does nothing where the C library has no such thing."""
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)


def release_free_memory() -> None:
    """Give what is free in the heap back to the system, after a step that needed much for a moment."""
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
