import inspect

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from daemon.engine import warm
from daemon.engine.pipeline import Pipeline, PipelineSettings
from hw.camera.contract import FrameStamp, PixelFormat
from kernels import background, calibrate, collect, detect, drift, functionals, photometry, transfer, unpack
from tests.measuring import operator_of
from tests.scenes import PoissonScene


def kernels():
    return {
        f"{module.__name__}.{name}": value
        for module in (background, calibrate, collect, detect, drift, functionals, photometry, transfer, unpack)
        for name, value in inspect.getmembers(module)
        if isinstance(value, Dispatcher)
    }


@pytest.fixture(scope="module")
def warmed():
    told = []
    warm.warm_kernels(lambda *step: told.append(step))
    return told


def test_every_step_is_told_and_the_end(warmed):
    total = warmed[0][2]
    assert [done for _, done, _ in warmed] == list(range(total + 1))
    assert warmed[-1] == ("", total, total)
    assert all(name for name, _, _ in warmed[:-1])


def test_every_pixel_format_is_warm():
    assert set(warm.FORMATS) == set(PixelFormat)


def test_measuring_compiles_nothing_more(warmed):
    """The first frames of a run are measured by what was compiled at the start, whatever happens in them."""
    before = {name: len(kernel.signatures) for name, kernel in kernels().items()}
    scene = PoissonScene(seed=2, height=160, width=200, particles=8)
    operator = type(built := operator_of(scene)).from_arrays(built.arrays())  # as it comes over the link
    pipeline = Pipeline(operator, PipelineSettings(12, 100.0, 0.02))
    drifts = [(0, 0)] * 10 + [(4.0, -3.0)] * 3
    for n, shift in enumerate(drifts):
        pipeline.add(scene.frame(drift=shift), FrameStamp(n, 0.01 * n, 0.01 * n))
    pipeline.take()
    dark = scene.mean_e().astype("f4") * 0
    for flat in (None, dark + np.float32(1.1)):
        mapped = Pipeline(operator, PipelineSettings(12, 100.0, 0.02, dark_map=dark, flat_map=flat))
        for n, shift in enumerate([(0, 0), (3.0, 0.0)]):
            mapped.add(scene.frame(drift=shift), FrameStamp(n, 0.01 * n, 0.01 * n))
        mapped.take()
    compiled = {name: len(kernel.signatures) - before[name] for name, kernel in kernels().items()}
    assert {name: count for name, count in compiled.items() if count} == {}
