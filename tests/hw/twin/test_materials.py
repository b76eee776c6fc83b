import numpy as np
import pytest

from hw.twin.materials import material

NAMES = ["nmc", "lfp", "lco", "graphite"]


@pytest.mark.parametrize("name", NAMES)
def test_tables_are_finite_and_activity_is_a_share(name):
    stuff = material(name)
    assert np.isfinite(stuff.potential).all()
    assert (stuff.activity >= 0).all() and (stuff.activity <= 1.0 + 1e-9).all()


@pytest.mark.parametrize("name", ["nmc", "lco", "graphite"])
def test_a_solid_solutions_potential_falls_with_lithium(name):
    stuff = material(name)
    volts = [stuff.open_v(c) for c in np.linspace(0.001, 0.999, 400)]
    assert (np.diff(volts) < 0).all()


def test_lfp_is_spinodal_between_its_phases_and_nowhere_else():
    stuff = material("lfp")
    poor, rich = stuff.phases
    assert (poor, rich) == pytest.approx((0.127, 0.873), abs=1e-3)
    inside = np.diff([stuff.open_v(c) for c in np.linspace(poor + 0.01, rich - 0.01, 50)])
    outside = np.diff([stuff.open_v(c) for c in np.linspace(0.01, poor - 0.01, 50)])
    assert (inside > 0).all() and (outside < 0).all()


@pytest.mark.parametrize(
    "name, discharged_v, charged_v",
    [("nmc", 3.62, 4.32), ("lfp", 3.43, 3.43), ("lco", 3.81, 4.28), ("graphite", 2.95, 3.42)],
)
def test_cells_have_the_voltages_of_real_ones(name, discharged_v, charged_v):
    stuff = material(name)
    for soc, volts in ((0.0, discharged_v), (1.0, charged_v)):
        assert stuff.cell_v(stuff.open_v(stuff.content(soc))) == pytest.approx(volts, abs=0.06)


@pytest.mark.parametrize("name", NAMES)
def test_soc_and_content_are_inverse_and_cell_voltage_its_own_inverse(name):
    stuff = material(name)
    assert stuff.soc(stuff.content(0.3)) == pytest.approx(0.3)
    assert stuff.cell_v(stuff.cell_v(3.3)) == pytest.approx(3.3)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_goes_beyond_full_or_empty(name):
    """The walls reach beyond the compliance of -0.5 to 6 V."""
    stuff = material(name)
    assert stuff.open_v(0.0) > (4.0 if stuff.anode else 6.5)
    assert stuff.open_v(1.0) < 0.0
