import gc
import subprocess
import sys
import weakref

import numpy as np
import psutil
import pytest

from daemon.service.memory import keep_heap_small, release_free_memory, spare_settled_objects, unchanged_pages
from kernels.drift import solve_shift


def test_memory_of_many_small_things_is_given_back():
    keep_heap_small()
    process = psutil.Process()
    held = [np.ones(10_000) for _ in range(1500)]  # below the size that is mapped, so that it lies in the heap
    full = process.memory_info().rss
    del held
    release_free_memory()
    assert process.memory_info().rss < full - 60_000_000


LARGE = """
import numpy as np, psutil
from daemon.service.memory import keep_heap_small
keep_heap_small()
np.ones(2_000_000)  # 16 MB: from here on the C library would keep as much in its heap
held = [np.ones(100_000) for _ in range(200)]
between = [np.ones(1000) for _ in range(200)]
full = psutil.Process().memory_info().rss
del held
assert psutil.Process().memory_info().rss < full - 150_000_000, between[0]
"""


def test_memory_of_large_arrays_is_given_back_at_once_whatever_was_freed_before():
    subprocess.run([sys.executable, "-c", LARGE], check=True, timeout=60)


def resident_code_bytes(library):
    return sum(place.rss for place in psutil.Process().memory_maps() if library in place.path)


def test_the_compilers_code_is_given_back_and_kernels_still_run_and_load():
    arguments = np.ones((2, 9)), np.zeros(2), np.zeros(2)
    solve_shift(*arguments)
    release_free_memory()
    assert resident_code_bytes("libllvmlite") < 25_000_000
    solve_shift(*arguments)
    solve_shift(np.ones((2, 9), np.float32), *arguments[1:])  # another signature: compiled or loaded now


class Knot:
    """Refers to itself: only the collector can free it."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def thawed():
    yield
    gc.unfreeze()


def test_what_is_alive_is_left_out_of_collections_and_still_freed_once_dead(thawed):
    kept = Knot()
    spare_settled_objects()
    assert gc.get_freeze_count() > 10_000
    assert len(gc.get_objects()) < 1000
    gone, kept = weakref.ref(kept), None
    gc.collect()
    assert gone() is not None
    spare_settled_objects()
    assert gone() is None


PAGES = """\
1000-2000 r-xp 00000000 fe:00 1                  /lib/liba.so
Rss:                  4 kB
Shared_Dirty:         0 kB
Private_Dirty:        0 kB
Anonymous:            0 kB
2000-3000 r--p 00001000 fe:00 1                  /lib/liba.so
Shared_Dirty:         {Shared_Dirty} kB
Private_Dirty:        {Private_Dirty} kB
Anonymous:            {Anonymous} kB
Swap:                 {Swap} kB
3000-4000 rw-p 00002000 fe:00 1                  /lib/liba.so
Shared_Dirty:         0 kB
Private_Dirty:        0 kB
Anonymous:            0 kB
4000-5000 r-xp 00000000 fe:00 2                  /lib/other.so
Shared_Dirty:         0 kB
Private_Dirty:        0 kB
Anonymous:            0 kB
5000-6000 r-xp 00000000 fe:00 1                  /lib/liba.so
Private_Dirty:        0 kB
7000-8000 rw-p 00000000 00:00 0
Shared_Dirty:         0 kB
Private_Dirty:        0 kB
Anonymous:            0 kB
"""
UNCHANGED = dict.fromkeys(("Shared_Dirty", "Private_Dirty", "Anonymous", "Swap"), 0)


@pytest.mark.parametrize("changed", [None, *UNCHANGED])
def test_only_pages_that_the_file_can_bring_back_are_given_up(changed):
    told = UNCHANGED | ({} if changed is None else {changed: 4})
    more = [(0x2000, 0x3000)] if changed is None else []
    assert list(unchanged_pages(PAGES.format(**told), "liba")) == [(0x1000, 0x2000), *more]


FORKED = """
import os
from daemon.service.memory import release_free_memory
from kernels.drift import solve_shift
import numpy as np
arguments = np.ones((2, 9)), np.zeros(2), np.zeros(2)
import llvmlite.binding as llvm
if (child := os.fork()) == 0:
    release_free_memory()
    llvm.get_process_triple()
    solve_shift(*arguments)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_process_keeps_what_its_parent_relocated():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)
