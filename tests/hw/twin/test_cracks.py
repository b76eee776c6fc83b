import numpy as np

from hw.twin.cracks import crack

CRACKS = [crack(1, particle, number) for particle in range(300) for number in (1, 2)]


def test_a_crack_is_fixed_by_seed_particle_and_number():
    assert crack(1, 5, 1) == crack(1, 5, 1)
    assert len({crack(1, 5, 1), crack(1, 5, 2), crack(1, 6, 1), crack(2, 5, 1)}) == 4


def test_cracks_have_the_sizes_of_real_ones():
    shifts = np.hypot([c.shift_y_px for c in CRACKS], [c.shift_x_px for c in CRACKS])
    assert all(-0.25 <= c.step <= -0.03 and 1 <= c.width_px <= 2 for c in CRACKS)
    assert shifts.min() >= 0.2 and shifts.max() <= 1.0
    for flags in ([c.disconnects for c in CRACKS], [c.heals for c in CRACKS]):
        assert abs(np.mean(flags) - 0.3) < 4 * np.sqrt(0.21 / len(CRACKS))


def test_a_fragment_moves_away_from_its_line():
    assert all(c.shift_y_px * np.sin(c.angle_rad) + c.shift_x_px * np.cos(c.angle_rad) > 0 for c in CRACKS)
