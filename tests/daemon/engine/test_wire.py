import socket
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daemon.engine.link import Message, receive, send
from daemon.engine.measures import Clip, Detection, MeasureBatch
from daemon.engine.pipeline import Pipeline, PipelineSettings
from daemon.engine.wire import (
    BATCH_ARRAYS,
    batch_from,
    batch_message,
    masks_message,
    masks_order,
    measure_message,
    measure_order,
    measured_camera,
)
from hw.camera.contract import CameraIdentity, PixelFormat
from tests.measuring import operator_of
from tests.scenes import PoissonScene

PER_FRAME = BATCH_ARRAYS[: BATCH_ARRAYS.index("flux_e")]
LAYERED = ("layer_flux_e", "layer_sigma_e")
INTEGERS = {"frame": "i8", "block_id": "i8", "flags": "u4", "particle_flags": "u2"}
CAMERA = CameraIdentity("s-1", 160, 200, PixelFormat.MONO12P)
NUMBERS = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0])


def crossed(message: Message) -> Message:
    """The message as it comes out at the other end."""
    left, right = socket.socketpair()
    with left, right:
        sender = threading.Thread(target=send, args=(left, message))
        sender.start()
        received = receive(right)
        sender.join()
    assert received is not None
    return received


@st.composite
def batches(draw):
    n, particles = draw(st.integers(1, 4)), draw(st.integers(0, 3))

    def shape(name):
        if name in PER_FRAME:
            return (n,)
        return (n, particles, 4) if name in LAYERED else (n, particles)

    arrays = {}
    for name in BATCH_ARRAYS:
        if name.startswith("baseline"):
            continue
        kind = INTEGERS.get(name, "f8" if name.endswith("t_s") else "f4")
        elements = None if name in INTEGERS else NUMBERS
        arrays[name] = draw(hnp.arrays(kind, shape(name), elements=elements))
    if draw(st.booleans()):
        arrays["baseline_flux_e"] = draw(hnp.arrays("f8", particles, elements=NUMBERS))
        arrays["baseline_layer_flux_e"] = draw(hnp.arrays("f8", (particles, 4), elements=NUMBERS))
    whole, number = st.integers(0, 2**53), st.floats()
    detection = st.builds(Detection, whole, whole, whole, number, number, number, number)
    scalars = {"mask_version": draw(whole), "baseline_end_frame": draw(whole), "camera_t0_s": draw(st.floats())}
    return MeasureBatch(**arrays, detections=draw(st.lists(detection, max_size=3)), **scalars)


@given(batches())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_batch_arrives_as_it_was_measured(batch):
    received = batch_from(crossed(batch_message(batch)))
    for field in fields(MeasureBatch):
        sent, got = getattr(batch, field.name), getattr(received, field.name)
        if isinstance(sent, np.ndarray):
            np.testing.assert_array_equal(got, sent)
            assert got.dtype == sent.dtype
        else:
            assert repr(got) == repr(sent)  # NaN equals NaN


@pytest.fixture(scope="module")
def operator():
    return operator_of(PoissonScene(seed=2, height=160, width=200, particles=8))


def test_the_order_to_measure_carries_everything_a_pipeline_takes(operator):
    shape = tuple(operator.shape)
    sent = PipelineSettings(12, 99.5, 2.5, 7, 0.5, np.full(shape, 3, np.float32), np.full(shape, 2, np.float32))
    baseline = (np.arange(8.0), np.arange(32.0).reshape(8, 4))
    order = crossed(
        measure_message(
            operator,
            sent,
            baseline=baseline,
            first_frame=17,
            first_t_s=4.25,
            last_stamp=(1.5, 77.0),
            rewind=False,
            mask_version=3,
            camera=CAMERA,
        )
    )
    assert measured_camera(order) == CAMERA
    assert (order.kind, order.fields["rewind"]) == ("measure", False)
    got = measure_order(order)
    assert (got["first_frame"], got["first_t_s"], got["last_stamp"]) == (17, 4.25, (1.5, 77.0))
    assert got["mask_version"] == 3
    for one, other in zip(got["baseline"], baseline, strict=True):
        np.testing.assert_array_equal(one, other)
    for field in fields(PipelineSettings):
        np.testing.assert_array_equal(getattr(got["settings"], field.name), getattr(sent, field.name))
    for name, array in operator.arrays().items():
        np.testing.assert_array_equal(getattr(got["operator"], name), array)
        assert np.asarray(getattr(got["operator"], name)).dtype == array.dtype
    assert Pipeline(**got).next_frame == 17


def test_what_is_not_given_stays_absent(operator):
    message = crossed(measure_message(operator, PipelineSettings(12, 100.0, 1.0)))
    order = measure_order(message)
    assert measured_camera(message) is None
    assert order["baseline"] is None and order["first_t_s"] is order["last_stamp"] is None and order["first_frame"] == 0
    assert order["settings"].dark_map is None and order["settings"].flat_map is None


def test_the_order_of_other_masks_carries_what_the_pipeline_takes(operator):
    kept = np.array([3, -1, 0], np.int32)
    got = masks_order(crossed(masks_message(operator, kept, 5)))
    assert got["mask_version"] == 5 and got["operator"].particles == 8
    np.testing.assert_array_equal(got["kept"], kept)
    assert all(array.flags.writeable for array in got["operator"].arrays().values() if array.ndim)


def test_received_operators_may_be_written_to(operator):
    # read-only arrays are another type to the compiler: every kernel would be compiled again in the engine
    got = measure_order(crossed(measure_message(operator, PipelineSettings(12, 100.0, 1.0))))["operator"]
    assert all(array.flags.writeable for array in got.arrays().values() if array.ndim)


def test_a_batch_without_particles_crosses():
    empty = {name: np.zeros((2, 0), np.float32) for name in BATCH_ARRAYS if not name.startswith("baseline")}
    empty |= {name: np.arange(2.0) for name in PER_FRAME}
    batch = replace(MeasureBatch(**empty), layer_flux_e=np.zeros((2, 0, 4)), layer_sigma_e=np.zeros((2, 0, 4)))
    received = batch_from(crossed(batch_message(batch)))
    assert len(received) == 2 and received.flux_e.shape == (2, 0) and received.baseline_flux_e is None


def test_clips_cross_with_their_pixels():
    looks = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    clips = [Clip(1, 70, 5, 6, np.array([0.5, 1.0]), looks), Clip(0, 71, 7, 8, np.array([2.0]), looks[:1] + 9)]
    zero, wide = np.zeros(1), np.zeros((1, 2))
    batch = MeasureBatch(*[zero] * 10, wide, wide, wide, wide, wide, wide, wide, clips=clips)
    for mine, theirs in zip(clips, batch_from(crossed(batch_message(batch))).clips, strict=True):
        assert (mine.index, mine.onset_frame, mine.y0_px, mine.x0_px) == (
            theirs.index, theirs.onset_frame, theirs.y0_px, theirs.x0_px,
        )  # fmt: skip
        np.testing.assert_array_equal(mine.pixels, theirs.pixels)
        np.testing.assert_array_equal(mine.t_s, theirs.t_s)
