import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from daemon.engine.measures import LAYERS
from daemon.photometry.derive import TRACE_COLUMNS, SocTable, bounded, derive_traces
from daemon.tables import TRACES

NAN = float("nan")
MONOTONE = {"kind": "monotone", "contrast_knots": [0.0, 0.1, 0.2], "soc_knots": [1.0, 0.4, 0.0], "soc_sigma": 0.01}
TWO_PHASE = {"kind": "end_members", "contrast_knots": [-0.2, 0.0], "soc_knots": [1.0, 0.0], "soc_sigma": 0.05}
OPEN = {"kind": "end_members", "contrast_knots": [-0.2, 0.0], "soc_knots": [1.0, 0.0], "soc_sigma": NAN}
FOLDED = {"kind": "folded", "contrast_knots": [], "soc_knots": [], "soc_sigma": NAN}


def derive(row: dict, contrast: float, sigma: float = 1e-4, layers: dict | None = None) -> dict[str, float]:
    values = derive_traces(np.array([[contrast]]), np.array([[sigma]]), layers or {}, {0: row}, np.full((1, 4), 2.0))
    return {name: float(column[0, 0]) for name, column in values.items()}


def test_columns_are_those_of_the_traces_table() -> None:
    columns = derive_traces(np.zeros((3, 2)), np.zeros((3, 2)), {}, {}, np.zeros((2, 4)))
    assert tuple(columns) == TRACE_COLUMNS
    assert set(TRACE_COLUMNS) < set(TRACES)
    assert all(column.shape == (3, 2) and column.dtype == np.float32 for column in columns.values())
    assert all(np.isnan(column).all() for column in columns.values())


def test_monotone_curve_is_read_between_its_knots() -> None:
    assert derive(MONOTONE, 0.05)["soc"] == pytest.approx(0.7)
    assert derive(MONOTONE, 0.15)["soc"] == pytest.approx(0.2)
    assert np.isnan(derive(MONOTONE, 0.05)["transformed_fraction"])


def test_interval_joins_noise_and_calibration() -> None:
    got = derive(MONOTONE, 0.05, sigma=0.002)
    width = 1.645 * np.hypot(6.0 * 0.002, 0.01)
    assert got["soc_lo"] == pytest.approx(0.7 - width, abs=1e-4)
    assert got["soc_hi"] == pytest.approx(0.7 + width, abs=1e-4)


def test_two_phases_give_the_transformed_fraction() -> None:
    got = derive(TWO_PHASE, -0.15)
    assert got["transformed_fraction"] == pytest.approx(0.75)
    assert got["soc"] == pytest.approx(0.75)


def test_ends_alone_give_a_wide_interval_and_no_gradient() -> None:
    layers = {"layer_surface": np.array([[-0.1]]), "layer_core": np.array([[-0.05]])}
    got = derive(OPEN, -0.1, layers=layers)
    assert got["soc"] == pytest.approx(0.5)
    assert got["soc_lo"] < 0.15
    assert got["soc_hi"] > 0.85
    assert np.isnan(got["gradient"])
    assert np.isnan(got["transformed_fraction"])


@pytest.mark.parametrize("row", [FOLDED, FOLDED | {"kind": "none"}, MONOTONE | {"contrast_knots": [0.1]}, {}])
def test_no_curve_no_value(row: dict) -> None:
    assert all(np.isnan(value) for value in derive(row, 0.1).values())


def test_a_little_outside_is_the_end_and_far_outside_is_unknown() -> None:
    assert derive(MONOTONE, -0.015)["soc"] == 1.0
    assert np.isnan(derive(MONOTONE, -0.05)["soc"])
    assert np.isnan(derive(MONOTONE, 0.3)["soc_hi"])


@pytest.mark.parametrize("prefix", ["", "layer_"])
def test_gradient_is_surface_minus_core(prefix: str) -> None:
    layers = {f"{prefix}surface": np.array([[0.05]]), f"{prefix}core": np.array([[0.06]])}
    got = derive(MONOTONE, 0.055, sigma=1e-3, layers=layers)
    assert got["gradient"] == pytest.approx(0.06)
    assert got["gradient_sigma"] == pytest.approx(np.sqrt(2.0) * np.hypot(6.0 * 2e-3, 0.01), rel=1e-3)


def test_each_layer_is_read_from_its_own_curve_of_its_own_mixture() -> None:
    part = {"contrast_knots": [0.0, 0.2], "soc_knots": [0.0, 1.0], "soc_sigma_knots": [0.0, 0.0]}
    steep = part | {"contrast_knots": [0.0, 0.4], "soc_sigma_knots": [0.01, 0.03]}
    own = {
        "weights": [[2.0, -1.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4, [0.0, 0.0, 0.0, 1.0]],
        "surface": part,
        "core": steep,
    }
    values = {"surface": 0.08, "outer": 0.06, "inner": np.nan, "core": 0.1}
    layers = {f"layer_{name}": np.array([[value]]) for name, value in values.items()}
    got = derive(MONOTONE | {"layers": own}, 0.1, sigma=1e-3, layers=layers)
    assert got["gradient"] == pytest.approx(0.5 - 0.25)
    expected = np.sqrt(5 * 0.002**2 * 25 + (0.002 / 0.4) ** 2 + 0.015**2)
    assert got["gradient_sigma"] == pytest.approx(expected, rel=1e-3)
    assert np.isnan(derive(MONOTONE | {"layers": None}, 0.1, layers=layers)["gradient"])
    assert np.isnan(
        derive(MONOTONE | {"layers": own}, 0.1, layers=layers | {"layer_outer": layers["layer_inner"]})["gradient"]
    )


def test_what_surface_and_core_share_of_a_layers_noise_counts_once() -> None:
    part = {"contrast_knots": [0.0, 0.2], "soc_knots": [0.0, 1.0], "soc_sigma_knots": [0.0, 0.0]}
    layers = {name: np.array([[0.1]]) for name in ("surface", "outer", "inner", "core")}
    for core in ([0.0, 0.5, 0.0, 0.5], [0.0, -0.5, 0.0, 1.5]):
        weights = [[0.5, 0.5, 0.0, 0.0], [0.0] * 4, [0.0] * 4, core]
        got = derive(MONOTONE | {"layers": {"weights": weights, "surface": part, "core": part}}, 0.1, 1e-3, layers)
        noise = np.linalg.norm(np.subtract(weights[0], core)) * 5.0 * 2e-3
        assert got["gradient_sigma"] == pytest.approx(noise, rel=1e-3)


def test_what_blur_hides_widens_a_gradient_by_its_share() -> None:
    part = {"contrast_knots": [0.0, 0.2], "soc_knots": [0.0, 1.0], "soc_sigma_knots": [0.0, 0.0]}
    own = {"weights": np.eye(4).tolist(), "surface": part, "core": part, "unsure": 0.1}
    layers = {name: np.array([[value]]) for name, value in zip(LAYERS, (0.14, 0.1, 0.1, 0.04), strict=True)}
    got = derive(MONOTONE | {"layers": own}, 0.1, 1e-3, layers)
    assert got["gradient"] == pytest.approx(0.5)
    assert got["gradient_sigma"] == pytest.approx(np.hypot(np.sqrt(2.0) * 2e-3 * 5.0, 0.05), rel=1e-3)


def test_the_calibrations_uncertainty_is_that_of_its_place() -> None:
    row = MONOTONE | {"soc_sigma_knots": [0.001, 0.01, 0.04]}
    for contrast, sigma in ((0.0, 0.001), (0.05, 0.0055), (0.15, 0.025)):
        got = derive(row, contrast, sigma=0.0)
        assert max(got["soc"] - got["soc_lo"], got["soc_hi"] - got["soc"]) == pytest.approx(1.645 * sigma, rel=1e-3)


@pytest.mark.parametrize("true", [0.0, 0.3, 1.0, 2.5, 50.0, 99.2, 100.0])
def test_intervals_of_a_bounded_fraction_cover_what_they_say(true: float) -> None:
    sigma = 0.01
    estimate = true * sigma + np.random.default_rng(5).normal(0, sigma, 200_000)
    lo, hi = bounded(estimate, np.full_like(estimate, sigma), np.full_like(estimate, sigma))
    covered = (np.clip(lo, 0, 1) <= true * sigma) & (true * sigma <= np.clip(hi, 0, 1))
    assert covered.mean() == pytest.approx(0.90, abs=0.012)
    assert (lo <= hi).all()


def test_rows_from_a_file_may_hold_none_for_nan() -> None:
    assert derive(OPEN | {"soc_sigma": None}, -0.1)["soc"] == pytest.approx(0.5)
    assert np.isnan(derive(FOLDED | {"soc_sigma": None}, -0.1)["soc"])


@given(
    contrast=arrays(float, (4, 3), elements=st.floats(width=32)),
    sigma=arrays(float, (4, 3), elements=st.floats(0, 1) | st.just(NAN)),
)
def test_soc_lies_within_its_bounds_whatever_comes_in(contrast: np.ndarray, sigma: np.ndarray) -> None:
    got = derive_traces(contrast, sigma, {}, {0: MONOTONE, 1: TWO_PHASE, 2: OPEN}, np.ones((3, 4)))
    known = np.isfinite(got["soc_lo"]) & np.isfinite(got["soc_hi"])
    assert (got["soc_lo"][known] <= got["soc"][known] + 1e-6).all()
    assert (got["soc"][known] <= got["soc_hi"][known] + 1e-6).all()
    assert ((got["soc_lo"][known] >= 0) & (got["soc_hi"][known] <= 1)).all()


def test_table_ignores_columns_that_do_not_exist() -> None:
    assert not SocTable({-1: MONOTONE, 5: MONOTONE}, 2).usable.any()
