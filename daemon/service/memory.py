"""Keeping resident memory small: this runs for months beside others on a small computer."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # from malloc.h
MAPPED_BYTES = 256 * 1024
ARENAS = 2  # threads here share their buffers; an arena each would keep tens of megabytes for nothing
CHANGED = re.compile(r"^(Anonymous|Shared_Dirty|Private_Dirty|Swap): +(\d+) kB$", re.MULTILINE)
ALWAYS_TOLD = {"Anonymous", "Shared_Dirty", "Private_Dirty"}  # `Swap` only by kernels that can
NEXT_PLACE = re.compile(r"^\w+-\w+ [r-]", re.MULTILINE)
SELDOM = "libllvmlite"  # the compiler behind numba: 65 MB of code, read while kernels load and never while they run


def keep_heap_small() -> None:
    """Call once, before threads start: few arenas, and arrays of `MAPPED_BYTES` or more in pages of their own.

    Left alone, the C library moves that limit up to 32 MB as such arrays are freed, and keeps the next ones in its
    heap, where they are not given back at once. Does nothing where the C library has no such thing.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)


def release_free_memory() -> None:
    """Give back what is free in the heap, and the compiler's code, after a step that needed much for a moment.

    The code stays in the file cache, where the system may use its room: touched again, it is there in microseconds.
    """
    trim = getattr(_libc(), "malloc_trim", None)
    if trim is not None:
        trim(0)
    advise = getattr(_libc(), "madvise", None)
    with contextlib.suppress(OSError):  # no /proc
        for start, end in unchanged_pages(Path("/proc/self/smaps").read_text(), SELDOM):
            if advise is not None:
                advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def spare_settled_objects() -> None:
    """Keep what is alive now out of the garbage collector's sight; call again when much was loaded since.

    A full collection holds the interpreter while it visits every object: 100 ms with numba's half a million of them,
    ten frames of a camera. They live as long as the process; without them it takes a millisecond.
    """
    gc.unfreeze()  # so that what died since the last call is found
    gc.collect()
    gc.freeze()


def unchanged_pages(smaps: str, library: str) -> Iterator[tuple[int, int]]:
    """Address ranges of `library` in the text of a ``smaps`` file that the file alone can bring back.

    Only those may be given up: relocated data, written once and read-only after, would be lost. They are private and
    dirty, or, after a fork, shared and dirty, or in the swap.
    """
    for place in re.finditer(rf"^(\w+)-(\w+) r-[x-]p .*{re.escape(library)}.*$", smaps, re.MULTILINE):
        after = NEXT_PLACE.search(smaps, place.end())
        changed = dict(CHANGED.findall(smaps, place.end(), after.start() if after is not None else len(smaps)))
        if changed.keys() >= ALWAYS_TOLD and set(changed.values()) == {"0"}:
            yield int(place[1], 16), int(place[2], 16)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
