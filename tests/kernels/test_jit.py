import numpy as np
from numba import njit

from kernels.jit import JIT, compilations


@njit(**JIT | {"cache": False})
def doubled(values: np.ndarray) -> np.ndarray:
    return values * 2


def test_only_what_is_compiled_meanwhile_is_told():
    with compilations() as first:
        doubled(np.ones(3))
    with compilations() as again:
        doubled(np.ones(3))
    with compilations() as other:
        doubled(np.ones(3, np.float32))
    assert first and other and not again
