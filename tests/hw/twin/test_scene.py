import numpy as np
import pytest

from hw.twin.electrode import Electrode
from hw.twin.sample import make_sample
from hw.twin.scene import PAD_PX, Scene, optical_response
from tests.hw.twin.conftest import options_of


def scene_of(**options):
    options = options_of(**options)
    sample = make_sample(options)
    return Scene(sample, options), Electrode(sample)


def test_the_image_is_background_plus_each_particles_flux():
    scene, electrode = scene_of(background_texture=0.0)
    empty = scene.image.astype(float)
    scene.show(electrode.state)
    assert (empty == 6000).all()
    gained = scene.image - empty
    assert gained.sum() == pytest.approx(scene.flux_e(electrode.state).sum(), rel=1e-4)
    for i, shape in enumerate(scene.shapes):
        height, width = shape.coverage.shape
        patch = gained[PAD_PX + shape.top :, PAD_PX + shape.left :][:height, :width]
        assert patch.sum() >= scene.flux_e(electrode.state)[i] * 0.999


def test_a_discharged_particles_flux_is_brightness_times_area():
    scene, electrode = scene_of()
    want = scene.brightness_e * [shape.area_px for shape in scene.shapes]
    np.testing.assert_allclose(scene.flux_e(electrode.state), want, rtol=2e-3)


@pytest.mark.parametrize("material", ["nmc", "lfp"])
def test_small_changes_drawn_one_after_another_equal_one_drawing(material):
    scene, electrode = scene_of(material=material, cracks_per_h=30.0)
    fresh, _ = scene_of(material=material, cracks_per_h=30.0)
    electrode.set_current(1.0)
    for _ in range(40):
        electrode.advance(40.0)
        scene.show(electrode.state)
    assert electrode.events
    fresh.show(electrode.state)
    for _ in range(3):
        scene.show(electrode.state)
    assert np.abs(scene.image - fresh.image).max() < 0.3 * 8 + 0.05 * 10_000 * (electrode.state.line % 1 > 0).any()


def test_a_small_budget_gets_there_in_the_end():
    scene, electrode = scene_of(dead_fraction=0.0)
    full, _ = scene_of(dead_fraction=0.0)
    full.show(electrode.state)
    for shown in range(6):
        assert np.abs(scene.image - full.image).max() > 1000, shown
        scene.show(electrode.state, budget=1)
    np.testing.assert_allclose(scene.image, full.image, rtol=1e-5)


def test_ordinary_particles_answer_monotonically_and_folded_ones_turn():
    sample = make_sample(options_of(particles=40, height_px=300, width_px=400, folded_fraction=0.25))
    response = optical_response(sample)
    window = np.linspace(0, 1, response.shape[1])
    inside = (window > sample.material.charged) & (window < sample.material.discharged)
    rising = (np.diff(response[:, inside], axis=1) < 0).mean(axis=1)  # lithium falls as charge rises
    assert (rising[~sample.folded] == 1).all() and (rising[~sample.folded].size, sample.folded.sum()) == (30, 10)
    assert ((rising[sample.folded] > 0.2) & (rising[sample.folded] < 0.8)).all()
    at_start = np.array([np.interp(sample.material.discharged, window, r) for r in response])
    np.testing.assert_allclose(at_start, 1.0, atol=1e-3)
    swing = np.array([np.interp(sample.material.charged, window, r) for r in response])[~sample.folded] - 1
    assert swing.min() > 0.19 and swing.max() < 0.35


def test_a_crack_says_how_much_it_took():
    scene, electrode = scene_of(cracks_per_h=30.0, particles=8)
    electrode.set_current(0.5)
    scene.show(electrode.state)
    while not electrode.events:
        electrode.advance(5.0)
    i = electrode.events[0].particle
    crackless = electrode.state.copy()
    crackless.crack_count[:], crackless.step_gain[:] = 0, 1
    before = scene.flux_e(crackless)[i]
    scene.show(electrode.state)
    change = scene.flux_e(electrode.state)[i] / before - 1
    assert scene.crack_changes[i] == pytest.approx(change, rel=1e-5)
    assert change < electrode.events[0].magnitude  # the dark line comes on top of the step


def test_labels_name_each_particle_once():
    scene, _ = scene_of()
    labels = scene.labels()
    sizes = np.bincount(labels.ravel(), minlength=7)
    assert labels.shape == (120, 160) and (sizes[1:] > 100).all()
    for i in range(6):
        assert labels[int(scene.sample.y_px[i]), int(scene.sample.x_px[i])] == i + 1


def test_the_sum_is_taken_anew_from_time_to_time(monkeypatch):
    monkeypatch.setattr("hw.twin.scene.REFRESH_FRAMES", 3)
    scene, electrode = scene_of()
    for _ in range(2):
        scene.show(electrode.state)
    good = scene.image.copy()
    scene.image += 5
    scene.show(electrode.state)
    np.testing.assert_allclose(scene.image, good, rtol=1e-6)


def test_two_phase_parts_show_the_front():
    scene, electrode = scene_of(material="lfp", dead_fraction=0.0, initial_soc=0.0)
    electrode.state.c[:] = electrode.state.c_surface[:] = 0.5
    contents = scene.part_contents(electrode.state)
    np.testing.assert_allclose(contents.mean(axis=1), 0.5, atol=1e-6)
    poor, rich = scene.sample.material.phases
    assert (contents[:, 0] == np.float32(poor)).all() and (contents[:, -1] == np.float32(rich)).all()
