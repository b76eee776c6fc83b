import numpy as np
import pytest

from hw.twin.disturbances import MAX_DRIFT_PX, Disturbances
from tests.hw.twin.conftest import options_of

OFF = {
    "drift_rms_nm": 0, "drift_walk_nm_per_h": 0, "focus_rms_px": 0, "led_warmup": 0, "led_rms": 0, "led_ripple": 0,
    "timestamp_jitter_us": 0,
}  # fmt: skip


def course(count=2000, interval_s=1.0, seed=1, **options):
    one = Disturbances(options_of(**OFF | options), seed, 96.0)
    return one, [one.at(n * interval_s) for n in range(count)]


def test_all_switches_off_is_stillness():
    _, states = course(50)
    _, static = course(50, static=True, drift_rms_nm=20, led_rms=0.01, focus_rms_px=0.5, dropped_fraction=0.5)
    for state in states + static:
        assert (state.drift_y_px, state.drift_x_px, state.blur_px, state.illumination) == (0, 0, 0, 1)
        assert state.jitter_s == 0 and not state.dropped


def test_wandering_has_its_rms_and_correlation_time():
    _, states = course(20_000, 3.0, drift_rms_nm=48.0)
    drift = np.array([(s.drift_y_px, s.drift_x_px) for s in states])
    np.testing.assert_allclose(drift.std(axis=0), 0.5, rtol=0.1)
    for axis in drift.T:
        assert np.corrcoef(axis[:-10], axis[10:])[0, 1] == pytest.approx(np.exp(-1), abs=0.08)


def test_the_walk_grows_as_the_root_of_time_and_stays_in_view():
    ends = [course(10, 400.0, seed=s, drift_walk_nm_per_h=100.0)[1][-1] for s in range(300)]
    drift = np.array([(s.drift_y_px, s.drift_x_px) for s in ends])
    assert drift.std() == pytest.approx(100 / 96, rel=0.1)
    _, far = course(200, 36_000.0, drift_walk_nm_per_h=1000.0)
    assert max(abs(s.drift_y_px) for s in far) <= MAX_DRIFT_PX


def test_led_warms_up_ripples_and_wanders():
    _, warm = course(3000, led_warmup=0.01)
    assert warm[0].illumination == pytest.approx(0.99) and warm[-1].illumination == pytest.approx(1.0, abs=1e-4)
    _, ripple = course(400, led_ripple=0.01)
    spectrum = np.abs(np.fft.rfft([s.illumination - 1 for s in ripple]))
    assert spectrum.argmax() / 400 == pytest.approx(0.37, abs=0.005)
    _, wander = course(20_000, 10.0, led_rms=0.01)
    assert np.std([s.illumination for s in wander]) == pytest.approx(0.01, rel=0.1)


def test_focus_wanders():
    _, states = course(20_000, 10.0, focus_rms_px=0.3)
    assert np.sqrt(np.mean([s.blur_px**2 for s in states])) == pytest.approx(0.3, rel=0.1)


@pytest.mark.parametrize(
    "option, kind",
    [
        ("drift_jumps_per_h", "drift_jump"),
        ("focus_jumps_per_h", "focus_jump"),
        ("led_steps_per_h", "illumination_step"),
    ],
)
def test_jumps_are_labelled_with_time_and_size(option, kind):
    one, states = course(3600, **{option: 20.0})
    assert {event.kind for event in one.events} == {kind} and 8 < len(one.events) < 40
    for event in one.events:
        n = round(event.t_s)
        before, after = states[n - 1], states[n]
        if kind == "drift_jump":
            change = np.hypot(after.drift_y_px - before.drift_y_px, after.drift_x_px - before.drift_x_px)
        elif kind == "focus_jump":
            change = after.blur_px
        else:
            change = after.illumination / before.illumination - 1
        assert change == pytest.approx(event.magnitude, abs=1e-9)


def test_frames_drop_and_stamps_jitter_as_asked():
    _, states = course(5000, dropped_fraction=0.1, timestamp_jitter_us=50.0)
    assert np.mean([s.dropped for s in states]) == pytest.approx(0.1, abs=0.02)
    assert np.std([s.jitter_s for s in states]) == pytest.approx(50e-6, rel=0.05)


def test_same_seed_same_course_and_one_switch_does_not_change_another():
    _, first = course(100, drift_rms_nm=20, led_rms=0.001)
    _, second = course(100, drift_rms_nm=20, led_rms=0.001)
    _, lit = course(100, drift_rms_nm=20, led_rms=0.0)
    assert first == second
    assert [s.drift_y_px for s in first] == [s.drift_y_px for s in lit]
    assert course(100, seed=2, drift_rms_nm=20)[1] != course(100, seed=1, drift_rms_nm=20)[1]
