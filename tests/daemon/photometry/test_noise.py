import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.engine.transfer import Transfer, TransferSums
from daemon.errors import RecordingError, RecordingReason
from daemon.photometry.noise import NoiseHints, resolve_noise
from tests.scenes import PoissonScene

SHAPE = (240, 320)


def steady(n):
    return 1.0


def rippled(n):
    return 1.0 + 0.05 * np.sin(0.9 * n)


def taken(light=steady, frames=60, seed=9, **options):
    scene = PoissonScene(seed=seed, height=SHAPE[0], width=SHAPE[1], particles=20, **options)
    mean, sums = scene.mean_e(), TransferSums(SHAPE)
    for n in range(frames):
        sums.add(scene.expose(mean * light(n)))
    return sums.result()


def of_frames(frames):
    sums = TransferSums(frames[0].shape)
    for frame in frames:
        sums.add(frame)
    return sums.result()


@pytest.fixture(scope="module")
def still():
    return taken()


@pytest.fixture(scope="module")
def lively():
    return taken(rippled)


def test_what_is_given_is_taken(still):
    noise = resolve_noise(NoiseHints(3.0, 2.0, 10.0), still, 12)
    assert (noise.gain_e_per_dn, noise.read_noise_e, noise.dark_dn, noise.estimated) == (3.0, 2.0, 10.0, False)
    assert noise.gain_origin == noise.read_noise_origin == noise.dark_origin == "given"
    assert noise.gain_sigma_e_per_dn is noise.read_noise_sigma_e is noise.dark_sigma_dn is None


def test_a_still_scene_tells_the_gain_and_with_the_typical_read_noise_the_dark_level(still):
    noise = resolve_noise(NoiseHints(), still, 12)
    assert noise.estimated and noise.gain_origin == noise.dark_origin == "estimated"
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.02) and 0 < noise.gain_sigma_e_per_dn < 0.1
    assert (noise.read_noise_e, noise.read_noise_origin, noise.read_noise_sigma_e) == (7.0, "assumed", 3.0)
    assert noise.dark_dn == pytest.approx(64.0, abs=8.0) and 4 < noise.dark_sigma_dn < 10


@pytest.mark.parametrize("read_noise_e", [3.0, 7.0, 12.0])
def test_changing_light_tells_dark_level_and_read_noise_apart(read_noise_e):
    noise = resolve_noise(NoiseHints(), taken(rippled, frames=120, read_noise_e=read_noise_e), 12)
    assert noise.dark_origin == noise.read_noise_origin == "estimated"
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.02)
    assert abs(noise.dark_dn - 64.0) < 4 * noise.dark_sigma_dn and noise.dark_sigma_dn < 3
    assert abs(noise.read_noise_e - read_noise_e) < 3.5 * noise.read_noise_sigma_e < 12


@pytest.mark.parametrize(
    ("bit_depth", "gain", "dark"), [(8, 128.0, 4.0), (8, 64.0, 8.0), (12, 2.0, 240.0), (16, 0.5, 100.0)]
)
def test_other_cameras(bit_depth, gain, dark):
    scene = {"bit_depth": bit_depth, "gain_e_per_dn": gain, "dark_dn": dark}
    # 12 bits of 2 e hold 8 ke, 8 bits of 64 e 16 ke: particles dimmer than those of the default scene
    scene |= {"background_e": 2_000.0, "particle_e": (2_500.0, 4_000.0)}
    noise = resolve_noise(NoiseHints(), taken(rippled, frames=100, **scene), bit_depth)
    assert noise.gain_e_per_dn == pytest.approx(gain, rel=0.04)
    assert noise.dark_origin == "estimated"
    assert abs(noise.dark_dn - dark) < 4 * noise.dark_sigma_dn


def test_uncertainties_are_those_of_many_scenes():
    scores = []
    for seed in range(20, 32):
        noise = resolve_noise(NoiseHints(), taken(rippled, frames=40, seed=seed), 12)
        scores.append(
            [(noise.gain_e_per_dn - 8) / noise.gain_sigma_e_per_dn, (noise.dark_dn - 64) / noise.dark_sigma_dn]
        )
    rms = np.sqrt(np.mean(np.square(scores), axis=0))
    assert (rms > 0.4).all() and (rms < 1.7).all(), rms


@pytest.mark.parametrize(
    ("hints", "gain_within"),
    [
        (NoiseHints(dark_dn=64.0), 0.02), (NoiseHints(read_noise_e=7.0), 0.02), (NoiseHints(gain_e_per_dn=8.0), 0.0),
        (NoiseHints(read_noise_e=7.0, dark_dn=64.0), 0.005), (NoiseHints(gain_e_per_dn=8.0, dark_dn=64.0), 0.0),
        (NoiseHints(gain_e_per_dn=8.0, read_noise_e=7.0), 0.0),
    ],
)  # fmt: skip
def test_what_is_known_stays_and_helps(still, hints, gain_within):
    noise = resolve_noise(hints, still, 12)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=gain_within, abs=0)
    assert noise.dark_dn == pytest.approx(64.0, abs=0 if hints.dark_dn else 8.0)
    for name, value in asdict(hints).items():
        if value is not None:
            assert getattr(noise, name) == value
    if hints.gain_e_per_dn and hints.dark_dn:
        assert noise.read_noise_origin == "estimated"
        assert abs(noise.read_noise_e - 7.0) < 3 * noise.read_noise_sigma_e < 7


def test_a_read_noise_that_the_data_contradict_is_not_assumed():
    noise = resolve_noise(NoiseHints(dark_dn=64.0), taken(frames=8, read_noise_e=60.0), 12)
    assert noise.read_noise_origin == "estimated" and noise.read_noise_e == pytest.approx(60.0, rel=0.1)


def test_moving_pixels_do_not_spoil_it(still):
    spoiled = still.variance_dn2.copy()
    spoiled[:80] *= 40
    noise = resolve_noise(NoiseHints(), replace(still, variance_dn2=spoiled), 12)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.04)


def test_shaking_does_not_spoil_it():
    scene = PoissonScene(seed=4, height=SHAPE[0], width=SHAPE[1], particles=20)
    rng = np.random.default_rng(0)
    noise = resolve_noise(NoiseHints(), of_frames([scene.frame(tuple(rng.normal(0, 0.1, 2))) for _ in range(60)]), 12)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.05)


def test_brightening_particles_do_not_spoil_it():
    """Not by their own change, and not by passing for a change of the light."""
    scene = PoissonScene(seed=5, height=SHAPE[0], width=SHAPE[1], particles=20)
    noise = resolve_noise(NoiseHints(), of_frames([scene.frame(brightness=1 + 0.005 * n) for n in range(60)]), 12)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.05)
    assert abs(noise.dark_dn - 64) < 4 * noise.dark_sigma_dn < 60


def test_light_that_changes_more_on_one_side_does_not_spoil_it():
    scene = PoissonScene(seed=6, height=SHAPE[0], width=SHAPE[1], particles=20)
    side, mean = 1 + 0.3 * np.linspace(-1, 1, SHAPE[1]), scene.mean_e()
    frames = [scene.expose(mean * (1 + 0.05 * np.sin(0.9 * n) * side)) for n in range(60)]
    noise = resolve_noise(NoiseHints(), of_frames(frames), 12)
    assert noise.dark_sigma_dn < 4 and abs(noise.dark_dn - 64) < 4 * noise.dark_sigma_dn


def test_hot_flickering_and_saturated_pixels_do_not_spoil_it(still):
    rng = np.random.default_rng(3)
    mean, variance = still.mean_dn.copy(), still.variance_dn2.copy()
    hot = rng.random(SHAPE) < 0.002
    mean[hot] += 800
    variance[hot] *= 9
    mean[30:60, 30:60], variance[30:60, 30:60] = 4095.0, 0.0
    noise = resolve_noise(NoiseHints(), replace(still, mean_dn=mean, variance_dn2=variance), 12)
    assert noise.gain_e_per_dn == pytest.approx(8.0, rel=0.03)


def test_an_even_scene_still_tells_its_relative_noise():
    frames = np.random.default_rng(0).poisson(9_000, (40, 100, 100)) / 3.0
    noise = resolve_noise(NoiseHints(), of_frames(frames), 12)
    assert noise.gain_e_per_dn == pytest.approx(3.0, rel=0.05)
    assert noise.dark_origin == "assumed" and noise.dark_sigma_dn > 30
    known = resolve_noise(NoiseHints(dark_dn=0.0), of_frames(frames), 12)
    assert known.gain_e_per_dn == pytest.approx(3.0, rel=0.01) and known.dark_dn == 0.0


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_a_read_noise_alone_needs_no_frames(frames):
    movie = np.random.default_rng(0).poisson(900, (frames, 100, 100))
    noise = resolve_noise(NoiseHints(gain_e_per_dn=2.0, dark_dn=64.0), of_frames(movie), 12)
    assert (noise.read_noise_e, noise.read_noise_origin, noise.estimated) == (7.0, "assumed", True)


RAMP = np.linspace(100, 3000, 10_000).reshape(100, 100)


@pytest.mark.parametrize(
    "frames",
    [
        np.full((40, 100, 100), np.nan), np.full((40, 100, 100), 700.0), np.full((40, 100, 100), 4095.0),
        np.zeros((40, 100, 100)), np.repeat(RAMP[None], 40, axis=0), np.ones((40, 3, 3)), RAMP[None],
        np.stack([RAMP, RAMP + 1]), np.random.default_rng(0).normal(4000, 300, (40, 100, 100)).clip(0, 4095),
    ],
    ids=["nan", "constant", "saturated", "black", "noiseless", "tiny", "one", "two", "half saturated"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("hints", "name"), [(NoiseHints(), "gain_e_per_dn"), (NoiseHints(gain_e_per_dn=2.0), "dark_dn")]
)
def test_what_cannot_be_estimated_is_asked_for_by_name(frames, hints, name):
    with pytest.raises(RecordingError, match=name) as caught:
        resolve_noise(hints, of_frames(frames), 12)
    assert caught.value.reason is RecordingReason.MISSING_VALUE


def test_variance_that_falls_with_brightness_gives_one_point_not_a_negative_gain():
    variance = np.linspace(300, 10, 10_000).reshape(100, 100)
    noise = resolve_noise(NoiseHints(), Transfer(RAMP, variance, 40, 39), 12)
    assert noise.gain_e_per_dn > 0


@settings(max_examples=60, deadline=None)
@given(
    gain=st.sampled_from([0.3, 8.0, 300.0]), level_e=st.floats(1, 1e5), span=st.floats(0, 1), dark=st.floats(0, 500),
    spoiled=st.sampled_from([0.0, np.nan, np.inf, -1.0, 1e30]), share=st.floats(0, 1), power=st.floats(0, 1e6),
    bits=st.sampled_from([8, 12, 16]), frames=st.integers(1, 60), seed=st.integers(0, 9),
    given_=st.tuples(*[st.booleans()] * 3),
)  # fmt: skip
def test_any_statistics_give_a_usable_model_or_a_named_refusal(
    gain, level_e, span, dark, spoiled, share, bits, frames, seed, given_, power
):
    rng = np.random.default_rng(seed)
    electrons = level_e * (1 + span * rng.random((40, 50)))
    mean = (dark + electrons / gain).astype(np.float32)
    variance = (electrons / gain**2 * rng.chisquare(30, mean.shape) / 30).astype(np.float32)
    for image in (mean, variance):
        image[rng.random(mean.shape) < share / 2] = spoiled
    response = rng.normal(1, 0.1, mean.shape).astype(np.float32)
    transfer = Transfer(
        mean, variance, frames, frames - 1, common_dn=float(dark + level_e / gain), common_pixels=2000,
        step_response=response, level_response=response, step_power_dn2=power, level_power_dn2=power,
    )  # fmt: skip
    hints = NoiseHints(*(value if known else None for value, known in zip((gain, 7.0, dark), given_, strict=True)))
    try:
        noise = resolve_noise(hints, transfer, bits)
    except RecordingError as error:
        assert error.reason is RecordingReason.MISSING_VALUE and not hints.complete
        return
    assert np.isfinite([noise.gain_e_per_dn, noise.read_noise_e, noise.dark_dn]).all()
    assert noise.gain_e_per_dn > 0 and noise.read_noise_e >= 0 and noise.dark_dn >= 0
    assert noise.estimated == (not all(given_))
    json.dumps(asdict(noise), allow_nan=False)
    for sigma, known in zip(
        (noise.gain_sigma_e_per_dn, noise.read_noise_sigma_e, noise.dark_sigma_dn), given_, strict=True
    ):
        assert sigma is None if known else sigma >= 0


def test_the_model_tells_itself():
    noise = resolve_noise(NoiseHints(), taken(frames=12), 12)
    gain, read_noise, dark = noise.sentences()
    assert gain.startswith("gain 8") and "e/DN (estimated, +-" in gain and gain.endswith(" %)")
    assert read_noise == "read noise 7 e (assumed, +-43 %)"
    assert dark.startswith("dark level ")
    assert resolve_noise(NoiseHints(3.0, 0.0, 10.0), taken(frames=1), 12).sentences() == [
        "gain 3 e/DN (given)", "read noise 0 e (given)", "dark level 10 DN (given)",
    ]  # fmt: skip
    assert replace(noise, dark_dn=1.0, dark_sigma_dn=5.0).sentences()[2] == "dark level 1 DN (estimated, +-5 DN)"
