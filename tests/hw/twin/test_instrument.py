import numpy as np
import pytest

from hw.twin.instrument import TwinInstrument
from hw.twin.settings import TwinOptions


def frames(instrument, count):
    return [instrument.next_frame() for _ in range(count)]


def test_same_options_same_frames_bit_for_bit(make):
    options = {"speed": 30.0, "cracks_per_h": 20.0, "dropped_fraction": 0.1, "focus_jumps_per_h": 20}
    first, second = (make(c_rate=1.0, **options) for _ in range(2))
    for (a, truth_a), (b, truth_b) in zip(frames(first, 40), frames(second, 40), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(truth_a.particles.c, truth_b.particles.c)
        assert truth_a.device_t_s == truth_b.device_t_s
    assert str(first.events) == str(second.events) and first.events
    assert not np.array_equal(frames(make(seed=2), 1)[0][0], frames(make(seed=1), 1)[0][0])


def test_frames_are_taken_at_their_times(make):
    instrument = make(c_rate=1.0, speed=20.0, frame_rate_hz=10.0)
    truths = [truth for _, truth in frames(instrument, 5)]
    np.testing.assert_allclose([t.t_s for t in truths], np.arange(5) * 2.0)
    assert [t.block_id for t in truths] == [0, 1, 2, 3, 4]
    assert max(abs(t.device_t_s - t.t_s) for t in truths) < 2e-4


def test_lost_frames_are_counted(make):
    instrument = make(dropped_fraction=0.3)
    truths = [truth for _, truth in frames(instrument, 60)]
    lost = sum(event.magnitude for event in instrument.events if event.kind == "frames_dropped")
    assert truths[-1].block_id + 1 == 60 + lost and lost > 5


def test_a_caller_may_drive_the_electrode(make):
    instrument = make(speed=60.0)
    instrument.electrode.set_current(0.5)
    truths = [truth for _, truth in frames(instrument, 20)]
    assert truths[-1].cell_soc == pytest.approx(19 * 60 / 3600, rel=1e-6)
    assert truths[-1].current_ma == pytest.approx(0.5)


def test_truth_is_a_record_not_a_view(make):
    instrument = make(c_rate=2.0, speed=60.0)
    first = instrument.next_frame()[1]
    before = first.particles.c.copy(), first.soc.copy(), first.flux_e.copy()
    frames(instrument, 10)
    for got, want in zip((first.particles.c, first.soc, first.flux_e), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_flux_of_the_picture_is_the_truths(make):
    """Sum of a patch, noiseless, less that of the same patch without particles."""
    instrument = make(c_rate=1.0, speed=120.0, static=True, noise="none", pixel_gain_sigma=0, illumination_falloff=0)
    empty = 6000 / 8 + 64
    for picture, truth in frames(instrument, 8):
        light = (picture.astype(float) - empty) * 8
        assert light.sum() == pytest.approx(truth.flux_e.sum() + _texture_e(instrument), rel=2e-3)


def _texture_e(instrument):
    image = instrument.microscope.scene._empty[24:-24, 24:-24].astype(float)
    return (image - 6000).sum()


def test_soc_and_gradient_follow_the_chemistry(make):
    instrument = make(speed=60.0, initial_soc=0.5, dead_fraction=0.0)
    instrument.electrode.set_current(0.5)
    truth = frames(instrument, 12)[-1][1]
    sample = instrument.sample
    assert sample.weight @ truth.soc == pytest.approx(truth.cell_soc, rel=1e-6)
    lead = (truth.particles.c - truth.particles.c_surface) / (sample.material.discharged - sample.material.charged)
    np.testing.assert_allclose(truth.gradient, 1.5 * lead, rtol=1e-3)  # quarters of a parabola's area stand 3/4 off
    assert (truth.gradient > 0).all()
    assert np.isnan(truth.front_px).all() and np.isnan(truth.charged_fraction).all()


def test_fronts_move_and_phases_pass_in_order(make):
    instrument = make(c_rate=None, material="lfp", speed=30.0, dead_fraction=0.0, cracks_per_h=0.0)
    instrument.electrode.set_current(0.6)
    truths = [truth for _, truth in frames(instrument, 120)]
    charged = np.array([t.charged_fraction for t in truths])
    fronts = np.array([t.front_px for t in truths])
    assert charged[0].max() == 0 and charged[-1].min() > 0.9
    for i in range(6):
        there = fronts[~np.isnan(fronts[:, i]), i]
        assert len(there) > 2 and np.diff(there).min() > -2 and there[-1] > there[0] + 5
        assert np.isnan(fronts[charged[:, i] == 0, i]).all()
        kinds = [event.kind for event in instrument.events if event.particle == i]
        assert kinds[0] == "phase_onset" and kinds[-1] == "phase_complete" and len(kinds) < 6
        onset = next(event.t_s for event in instrument.events if event.particle == i)
        assert charged[int(onset // 30) - 1, i] < 0.05 <= charged[int(onset // 30), i]


def test_discharge_onset_is_the_passing_of_95_percent(make):
    instrument = make(material="lfp", speed=30.0, dead_fraction=0.0, initial_soc=1.0, cracks_per_h=0.0)
    instrument.electrode.set_current(-0.6)
    truths = [truth for _, truth in frames(instrument, 60)]
    onset = next(event for event in instrument.events if event.kind == "phase_onset")
    n = round(onset.t_s / 30)
    assert truths[n - 1].charged_fraction[onset.particle] > 0.95 >= truths[n].charged_fraction[onset.particle]


def test_a_crack_is_labelled_with_its_change_of_flux(make):
    instrument = make(speed=5.0, cracks_per_h=60.0, initial_soc=0.3)
    instrument.electrode.set_current(0.5)
    flux = [instrument.next_frame()[1].flux_e]
    while not any(event.kind == "crack" for event in instrument.events):
        flux.append(instrument.next_frame()[1].flux_e)
    crack = next(event for event in instrument.events if event.kind == "crack")
    change = flux[-1][crack.particle] / flux[-2][crack.particle] - 1
    assert crack.magnitude == pytest.approx(change, abs=2e-3)


def test_the_picture_shows_what_the_truth_says(make):
    """A lone particle's light in a noiseless picture grows as its flux does."""
    instrument = make(speed=300.0, static=True, noise="none", particles=1, dead_fraction=0.0, folded_fraction=0.0)
    instrument.electrode.set_current(0.5)
    taken = frames(instrument, 10)
    field = instrument.microscope.field
    seen = [((picture - 64.0) / field).sum() * 8 for picture, _ in taken]
    true = [truth.flux_e[0] for _, truth in taken]
    np.testing.assert_allclose(np.subtract(seen, seen[0]), np.subtract(true, true[0]), atol=0.001 * true[0])
    assert true[-1] > 1.1 * true[0]


def test_mono8_frames_are_bytes(make):
    picture, _ = make(pixel_format="Mono8").next_frame()
    assert picture.dtype == np.uint8 and 20 < picture.mean() < 200


def test_a_given_array_is_filled(make):
    out = np.zeros((120, 160), np.uint16)
    assert make().next_frame(out)[0] is out and out.min() > 0


def test_the_default_instrument_can_be_built():
    instrument = TwinInstrument(TwinOptions(), c_rate=1.0)
    picture, truth = instrument.next_frame()
    assert picture.shape == (600, 960) and len(truth.soc) == 300
    assert (truth.flux_e > 0).all() and instrument.sample.dead.sum() == 15
