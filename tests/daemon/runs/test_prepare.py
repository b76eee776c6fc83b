import socket
import threading
from dataclasses import fields, replace

import numpy as np
import pytest

from daemon.engine.child import ask
from daemon.engine.link import Message, receive, send
from daemon.engine.transfer import Transfer, TransferSums
from daemon.errors import InstrumentError, RecordingReason, RunReason
from daemon.photometry.noise import NoiseHints
from daemon.recipe import MaskSettings
from daemon.runs import prepare as module
from daemon.runs.prepare import Reference, prepare, prepared_from, reference_message
from tests.scenes import PoissonScene

UNKNOWN = np.full((160, 200), np.nan, np.float32)
SETTINGS = MaskSettings(min_area_px=40, background_px=48)


@pytest.fixture(scope="module")
def scene():
    return PoissonScene(seed=8, height=200, width=260, particles=12)


@pytest.fixture(scope="module")
def frames(scene):
    mean = scene.mean_e()
    return np.stack([scene.expose(mean) for _ in range(12)])


def reference(frames, hints=None, **changes):
    mean = frames.mean(axis=0, dtype=np.float32)
    variance = (np.diff(frames.astype(np.float32), axis=0) ** 2).sum(axis=0) / (2 * (len(frames) - 1))
    hints = hints or NoiseHints(8.0, 7.0, 64.0)
    made = Reference(mean, variance.astype(np.float32), len(frames), 12, hints, 96.0)
    return replace(made, **changes)


def assert_equal(one, other):
    for name in ("labels", "particle_id", "y_px", "x_px"):
        np.testing.assert_array_equal(getattr(one.masks, name), getattr(other.masks, name))
    assert one.masks.table.keys() == other.masks.table.keys()
    for name, column in one.masks.table.items():
        np.testing.assert_array_equal(column, other.masks.table[name])
    for name in ("psf_sigma_px", "pixel_size_nm", "version"):
        assert getattr(one.masks, name) == getattr(other.masks, name)
    for field in fields(one.operator):
        np.testing.assert_array_equal(getattr(one.operator, field.name), getattr(other.operator, field.name))
    assert one.noise == other.noise


def test_the_scenes_particles_are_found_and_compiled(scene, frames):
    prepared = prepare(reference(frames), SETTINGS)
    assert prepared.masks.count == scene.count == prepared.operator.particles
    assert prepared.noise.gain_e_per_dn == 8.0 and not prepared.noise.estimated
    assert prepared.masks.pixel_size_nm == 96.0
    truth = scene.labels()
    for y, x in zip(prepared.masks.y_px, prepared.masks.x_px, strict=True):
        assert truth[round(y), round(x)] > 0


async def test_a_process_of_its_own_gives_the_same(frames):
    asked = reference(frames, dark_map=np.full(frames[0].shape, 64, np.float32))
    answer = await ask("daemon.runs.prepare", reference_message(asked, SETTINGS), 40.0)
    assert_equal(prepared_from(answer), prepare(asked, SETTINGS))


def crossed(order):
    """The answer of `main`, over a socket but in this process."""
    ours, theirs = socket.socketpair()
    with ours:
        worker = threading.Thread(target=module.main, args=(theirs.detach(),))
        worker.start()
        if order is not None:
            send(ours, order)
        else:
            ours.shutdown(socket.SHUT_WR)
        answer = receive(ours)
        worker.join()
    return answer


def test_unknown_noise_comes_from_the_frames_themselves(frames):
    asked = reference(frames, NoiseHints())
    prepared = prepared_from(crossed(reference_message(asked, SETTINGS)))
    assert prepared.noise.estimated
    assert prepared.noise.gain_e_per_dn == pytest.approx(8.0, rel=0.05)


def test_statistics_beside_the_reference_are_what_the_noise_is_estimated_from(scene, frames):
    sums, mean = TransferSums(frames[0].shape), scene.mean_e()
    for n in range(60):
        sums.add(scene.expose(mean * (1 + 0.1 * (n % 2))))
    asked = reference(frames, NoiseHints(), transfer=sums.result())
    here = prepare(asked, SETTINGS).noise
    assert here.dark_origin == "estimated" and abs(here.dark_dn - 64) < 4 * here.dark_sigma_dn < 12
    assert prepared_from(crossed(reference_message(asked, SETTINGS))).noise == here


def test_maps_are_divided_out_before_anything_is_found(scene, frames):
    rng = np.random.default_rng(2)
    flat = rng.uniform(0.6, 1.4, frames[0].shape).astype(np.float32)
    uneven = (frames - 64.0) * flat + 64.0
    plain = prepare(reference(frames), SETTINGS)
    corrected = prepare(reference(uneven, flat_map=flat, dark_map=np.full(flat.shape, 64, np.float32)), SETTINGS)
    assert corrected.masks.count == plain.masks.count
    assert ((corrected.masks.labels > 0) == (plain.masks.labels > 0)).mean() > 0.999


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, RunReason.NO_PARTICLES.code),
        ({"hints": NoiseHints(), "frames": 1, "variance_dn2": UNKNOWN}, RecordingReason.MISSING_VALUE.code),
    ],
)
def test_what_cannot_be_prepared_is_refused_the_same_way_here_and_there(changes, code):
    rng = np.random.default_rng(0)
    empty = replace(reference(rng.normal(800, 10, (12, 160, 200)).astype(np.uint16)), **changes)
    with pytest.raises(InstrumentError) as caught:
        prepare(empty, SETTINGS)
    assert caught.value.code == code
    answer = crossed(reference_message(empty, SETTINGS))
    assert (answer.kind, answer.fields["code"], answer.fields["detail"]) == ("failed", code, caught.value.detail)


def test_nothing_asked_is_nothing_answered():
    assert crossed(None) is None


def test_the_order_is_plain():
    order = reference_message(reference(np.ones((3, 20, 20), np.uint16)), SETTINGS)
    order_of_all = reference_message(
        reference(np.ones((3, 20, 20)), transfer=Transfer(UNKNOWN, UNKNOWN, 9, 8)), SETTINGS
    )
    assert order_of_all.arrays.keys() == order.arrays.keys()  # nothing is to be estimated
    assert isinstance(order, Message) and order.arrays.keys() == {"mean_dn", "variance_dn2"}
    assert MaskSettings(**order.fields["masks"]) == SETTINGS
