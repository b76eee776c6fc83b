import numpy as np
import psutil

from daemon.service.memory import limit_arenas, release_free_memory


def test_memory_of_many_small_things_is_given_back():
    limit_arenas()
    process = psutil.Process()
    held = [np.ones(10_000) for _ in range(1500)]  # below the size that is mapped, so that it lies in the heap
    full = process.memory_info().rss
    del held
    release_free_memory()
    assert process.memory_info().rss < full - 60_000_000
