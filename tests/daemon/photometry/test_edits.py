from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.engine.measures import MaskSet, NoiseModel, kept_columns
from daemon.engine.operator import MARGIN_PX
from daemon.errors import MaskError, MaskReason
from daemon.mask_edits import EDITS
from daemon.photometry.compile import compile_operator
from daemon.photometry.edits import SHARED_PX, edit_masks, rasterised
from daemon.photometry.outlines import outline, outlines_of
from daemon.photometry.shape import centroids, shape_table
from daemon.recipe import MaskSettings

HEIGHT, WIDTH = 120, 160
NOISE = NoiseModel(2.0, 5.0, 100.0)
SETTINGS = MaskSettings(min_area_px=30, max_area_px=600, background_px=32)
CENTRES = [(30, 30), (30, 80), (30, 130), (80, 40)]
RADIUS = 7


def disc(y, x, radius=RADIUS):
    rows, cols = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def circle(y, x, radius, points=48):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.column_stack([y + radius * np.sin(angle), x + radius * np.cos(angle)]).tolist()


def reference():
    """Discs of 1000 electrons on 200."""
    image = np.full((HEIGHT, WIDTH), 200.0)
    for y, x in CENTRES:
        image[disc(y, x)] = 1200.0
    image[disc(85, 110)] = 1200.0  # of no particle
    return image / NOISE.gain_e_per_dn + NOISE.dark_dn


def found():
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    for i, (y, x) in enumerate(CENTRES):
        labels[disc(y, x)] = i + 1
    y_px, x_px = centroids(labels)
    table = shape_table(labels, (reference() - NOISE.dark_dn) * NOISE.gain_e_per_dn - 200.0, 1.5, 100.0)
    return MaskSet(labels, np.arange(1, 5), y_px, x_px, table, 1.5, 100.0, excluded=disc(85, 110))


def edit(masks, *edits):
    return edit_masks(masks, EDITS.validate_python(list(edits)), reference(), NOISE, SETTINGS)


def remove(particle_id):
    return {"action": "remove", "particle_id": particle_id}


def add(outline_px):
    return {"action": "add", "outline_px": [list(point) for point in outline_px]}


def swap(particle_id, outline_px):
    return {"action": "replace", "particle_id": particle_id, "outline_px": outline_px}


def refused(reason, *edits, masks=None):
    masks = masks or found()
    before = masks.labels.copy(), masks.excluded.copy()
    with pytest.raises(MaskError) as caught:
        edit(masks, *edits)
    assert caught.value.reason is reason
    np.testing.assert_array_equal(masks.labels, before[0])
    np.testing.assert_array_equal(masks.excluded, before[1])
    return caught.value.detail


def test_a_removed_particle_keeps_its_row_and_its_light_is_nobodys_background():
    masks, made = edit(found(), remove(2))
    assert made == [None] and masks.version == 2
    assert masks.particle_id.tolist() == [1, 2, 3, 4] and masks.active.tolist() == [True, False, True, True]
    assert not (masks.labels == 2).any() and (masks.labels == 3).sum() == disc(30, 130).sum()
    assert masks.excluded[disc(30, 80)].all() and masks.excluded[disc(85, 110)].all()
    assert masks.positions.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(masks.y_px, found().y_px)
    np.testing.assert_array_equal(masks.table["area_px"], found().table["area_px"])


def test_an_added_particle_comes_last_under_a_new_id():
    masks, made = edit(found(), add(outline(disc(85, 110))))
    assert made == [5] and masks.particle_id.tolist() == [1, 2, 3, 4, 5] and masks.parent_id.tolist() == [0] * 5
    np.testing.assert_array_equal(masks.labels == 5, disc(85, 110))
    assert not masks.excluded.any(), "what was foreign light is its own now"
    assert (masks.y_px[4], masks.x_px[4]) == (pytest.approx(85), pytest.approx(110))
    assert masks.table["area_px"][4] == disc(85, 110).sum()
    assert masks.table["brightness_e"][4] == pytest.approx(1000 * disc(85, 110).sum(), rel=0.02)
    assert masks.table["nearest_neighbour_um"][4] == pytest.approx(0.1 * np.hypot(55, 20), rel=1e-3)


def test_a_replaced_particle_is_another_that_names_its_parent():
    masks, made = edit(found(), swap(2, circle(31, 80, RADIUS - 0.6)))
    assert made == [5] and masks.parent_id.tolist() == [0, 0, 0, 0, 2] and masks.active.tolist() == [1, 0, 1, 1, 1]
    assert not (masks.labels == 2).any()
    assert not masks.excluded[disc(30, 80)].any(), "the rest of the old one is the new one's blurred rim"


def test_edits_see_what_those_before_them_left():
    where = circle(30, 82, RADIUS)
    refused(MaskReason.OVERLAP, add(where), remove(2))
    masks, made = edit(found(), remove(2), add(where))
    assert made == [None, 5] and (masks.labels == 5).any() and not (masks.labels == 2).any()


def test_versions_follow_each_other_and_ids_are_never_given_again():
    second, _ = edit(found(), add(circle(85, 110, RADIUS)))
    third, _ = edit(second, remove(5))
    fourth, made = edit(third, swap(1, circle(30, 30, RADIUS)), add(circle(85, 110, RADIUS)))
    assert made == [6, 7] and fourth.version == 4
    assert fourth.positions.tolist() == [1, 2, 3, 5, 6]
    assert kept_columns(third, fourth).tolist() == [1, 2, 3, -1, -1]
    assert kept_columns(found(), second).tolist() == [0, 1, 2, 3, -1]
    assert np.isfinite(fourth.table["area_px"]).all()


@pytest.mark.parametrize(
    ("particle_id", "words"), [(9, "there is no particle 9"), (2, "particle 2 was removed"), (5, "no particle 5")]
)
def test_only_particles_that_are_there_can_go(particle_id, words):
    masks, _ = edit(found(), remove(2))
    for action in (remove(particle_id), swap(particle_id, circle(85, 110, RADIUS))):
        assert words in refused(MaskReason.NO_PARTICLE, action, masks=masks)
    assert "version 2" in refused(MaskReason.NO_PARTICLE, remove(9), masks=masks)


def test_what_the_same_request_made_cannot_be_removed_by_it():
    refused(MaskReason.NO_PARTICLE, add(circle(85, 110, RADIUS)), remove(5))
    refused(MaskReason.NO_PARTICLE, remove(2), remove(2))


def test_the_last_particle_stays():
    everything = [remove(particle_id) for particle_id in (1, 2, 3, 4)]
    refused(MaskReason.NONE_LEFT, *everything)
    masks, _ = edit(found(), *everything, add(circle(85, 110, RADIUS)))
    assert masks.positions.tolist() == [4]


@pytest.mark.parametrize("outline_px", [[], [[50.0, 50.0]], [[50.0, 50.0], [60.0, 60.0]]])
def test_less_than_three_points_enclose_nothing(outline_px):
    refused(MaskReason.BAD_OUTLINE, add(outline_px))


def test_two_areas_joined_by_less_than_a_pixel_are_no_particle():
    joined = [[60, 60], [60, 70], [65.3, 70], [65.3, 90], [60, 90], [60, 100], [70, 100], [70, 90], [65.4, 90],
              [65.4, 70], [70, 70], [70, 60]]  # fmt: skip
    assert "2 areas" in refused(MaskReason.BAD_OUTLINE, add([[float(y), float(x)] for y, x in joined]))


def test_holes_of_an_outline_are_filled():
    around, inside = circle(85, 110, 9), circle(85, 110, 3)
    pixels = rasterised([*around, around[0], *inside, inside[0], around[0]], (HEIGHT, WIDTH))
    np.testing.assert_array_equal(pixels, rasterised(around, (HEIGHT, WIDTH)))


@pytest.mark.parametrize("radius", [2.5, 20.0])
def test_areas_outside_the_recipes_bounds_are_refused(radius):
    masks, centre = found(), (80, 110)
    detail = refused(MaskReason.BAD_AREA, add(circle(*centre, radius)), masks=masks)
    assert "30 to 600" in detail


@pytest.mark.parametrize(
    "centre", [(MARGIN_PX + 4, 60), (HEIGHT - MARGIN_PX - 4, 60), (70, MARGIN_PX + 4), (70, WIDTH - MARGIN_PX - 4)]
)
def test_an_outline_too_near_the_edge_is_refused_with_the_bounds(centre):
    detail = refused(MaskReason.NEAR_EDGE, add(circle(*centre, 6)))
    assert f"y {MARGIN_PX} to {HEIGHT - 1 - MARGIN_PX}" in detail


@pytest.mark.parametrize("point", [[-1e9, 60.0], [60.0, 1e308], [-0.6, 60.0]])
def test_points_outside_the_frame_are_refused(point):
    refused(MaskReason.NEAR_EDGE, add([point, [70.0, 60.0], [70.0, 80.0]]))


def test_pixels_of_another_particle_stay_its_own():
    assert "particle 1" in refused(MaskReason.OVERLAP, add(circle(30, 30 + 1.5 * RADIUS, RADIUS)))
    # one pixel of the neighbour's edge
    touching = [[30.0, 37.0], [26.0, 41.0], [26.0, 50.0], [34.0, 50.0], [34.0, 41.0]]
    shared = rasterised(touching, (HEIGHT, WIDTH)) & (found().labels == 1)
    assert 0 < shared.sum() <= SHARED_PX
    masks, _ = edit(found(), add(touching))
    np.testing.assert_array_equal(masks.labels == 1, found().labels == 1)
    assert (masks.labels == 5).sum() == rasterised(touching, (HEIGHT, WIDTH)).sum() - shared.sum()


def test_the_operator_has_the_particles_that_are_there():
    masks, _ = edit(found(), remove(1), swap(3, circle(30, 130, RADIUS - 1)))
    level_e = ((reference() - NOISE.dark_dn) * NOISE.gain_e_per_dn).astype(np.float32)
    compact = masks.measured()
    assert compact.particle_id.tolist() == [2, 4, 5] and set(np.unique(compact.labels)) == {0, 1, 2, 3}
    assert compact.parent_id.tolist() == [0, 0, 3]
    operator = compile_operator(level_e, compact, NOISE, 10)
    assert operator.particles == 3
    width = WIDTH
    rings = set((operator.ring_span[:, None] + np.arange(8)).reshape(-1)[operator.ring_weights > 0].tolist())
    removed = {int(y) * width + int(x) for y, x in np.argwhere(disc(30, 30))}
    assert not rings & removed, "background is read in the light of a removed particle"


def test_masks_without_edits_measure_every_particle():
    masks = found()
    assert masks.measured() is masks and masks.positions.tolist() == [0, 1, 2, 3]


@given(
    st.floats(MARGIN_PX, HEIGHT - 1 - MARGIN_PX),
    st.floats(MARGIN_PX, WIDTH - 1 - MARGIN_PX),
    st.lists(st.tuples(st.floats(1, 20), st.floats(0, 2 * np.pi)), min_size=3, max_size=12),
)
@settings(deadline=None, max_examples=150)
def test_an_edit_is_refused_or_leaves_every_other_particle_as_it_was(y, x, rays):
    points = [[y + r * np.sin(angle), x + r * np.cos(angle)] for r, angle in sorted(rays, key=lambda ray: ray[1])]
    before = found()
    try:
        masks, (made,) = edit(before, add(points))
    except MaskError as error:
        assert error.detail and error.remedy
        return
    own = masks.labels == masks.count
    assert made == 5 and masks.count == 5
    assert SETTINGS.min_area_px <= own.sum() <= SETTINGS.max_area_px
    np.testing.assert_array_equal(np.where(own, 0, masks.labels), before.labels)
    rows, cols = np.nonzero(own)
    assert rows.min() >= MARGIN_PX and rows.max() <= HEIGHT - 1 - MARGIN_PX
    assert cols.min() >= MARGIN_PX and cols.max() <= WIDTH - 1 - MARGIN_PX
    inside = rasterised(points, own.shape)
    assert (inside & own).sum() == own.sum() and (inside & ~own).sum() <= SHARED_PX
    # what an outline is told to be, drawn again, is the same particle
    shape = outlines_of(masks.labels)[5]
    again, _ = edit(replace(masks, active=None), swap(5, shape))
    if (inside == own).all():
        np.testing.assert_array_equal(again.labels == 6, own)
