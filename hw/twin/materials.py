"""Electrode materials as tables over lithium content c: equilibrium potential against lithium, exchange activity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kernels.electrode import THERMAL_V, equilibrium_v

TABLE = 2049


@dataclass(frozen=True)
class Material:
    """One active material.

    The potential is `potential(c) - entropy RT/F ln(c / (1 - c))` V; its exchange rate `rate_per_h * activity(c)`.
    `phases` are the contents of the poor and rich side of a front. A cathode's cell voltage is its
    potential; an anode's is `counter_v` less its potential.
    """

    name: str
    potential: np.ndarray
    activity: np.ndarray
    entropy: float
    rate_per_h: float
    diffusivity_m2_s: float
    """0: no gradient inside the particle."""
    discharged: float
    charged: float
    """Lithium contents at the ends of the window that `capacity_mah` spans."""
    anode: bool = False
    counter_v: float = 0.0
    phases: tuple[float, float] | None = None
    wave_fraction: float = 0.0
    """Share of particles whose front crosses along an axis instead of shrinking on a core."""

    def cell_v(self, electrode_v: float) -> float:
        """Cell voltage (no current) of an electrode potential; also the other way round."""
        return self.counter_v - electrode_v if self.anode else electrode_v

    def open_v(self, c: float) -> float:
        """Equilibrium potential against lithium at content `c`."""
        return float(equilibrium_v(c, self.potential, self.entropy))

    def soc(self, c: np.ndarray) -> np.ndarray:
        """State of charge: 0 at the discharged, 1 at the charged end of the window."""
        return (self.discharged - c) / (self.discharged - self.charged)

    def content(self, soc: float) -> float:
        """Lithium content at a state of charge."""
        return self.discharged + soc * (self.charged - self.discharged)


def _grid() -> np.ndarray:
    return np.linspace(0.0, 1.0, TABLE)


def _symmetric(c: np.ndarray) -> np.ndarray:
    return 2.0 * np.sqrt(c * (1.0 - c))


def _nmc532_v(c: np.ndarray) -> np.ndarray:
    """Colclasure et al., Electrochim. Acta 337 (2020), as used by MPET."""
    coefficients = (
        5.314735633, -4.15827660360906, 27.2340921804213, -272.485166844578, 1190.22342119331, -2073.765547574810,
        -829.7904604107030, 8698.11275534872, -10743.7433318619, -2057.80887352635, 12656.309785124, -1571.094264365090,
        -14557.42062291360, 13176.57544484270, -3640.117692001490,
    )  # fmt: skip
    return np.polynomial.polynomial.polyval(c, coefficients) - 5.573191762723310e-4 * np.exp(
        6.560240842659690 * c**41.48209275061330
    )


def _park_activity(c: np.ndarray) -> np.ndarray:
    """Autocatalytic exchange of NMC (Park et al., Nat. Mater. 20, 2021, as in MPET): slow when full of lithium."""
    return 1.0 / (1.0 + np.exp(25.0 * (c - 0.6)))


def _lco_v(c: np.ndarray) -> np.ndarray:
    """Doyle and Newman's LiCoO2 fit (Ramadass et al. 2004)."""
    fit = (
        2.16216
        + 0.07645 * np.tanh(30.834 - 54.4806 * c)
        + 2.1581 * np.tanh(52.294 - 50.294 * c)
        - 0.14169 * np.tanh(11.0923 - 19.8543 * c)
        + 0.2051 * np.tanh(1.4684 - 5.4888 * c)
        + 0.2531 * np.tanh((0.56478 - c) / 0.1316)
        - 0.02167 * np.tanh((c - 0.525) / 0.006)
    )
    return fit - 0.8 * np.exp((c - 1.0) / 0.006)  # the fit ends before the cell is empty


def _graphite_v(c: np.ndarray) -> np.ndarray:
    """Safari and Delacourt, J. Electrochem. Soc. 158 (2011)."""
    return (
        0.6379
        + 0.5416 * np.exp(-305.5309 * c)
        - 0.044 * np.tanh((c - 0.1958) / 0.1088)
        - 0.1978 * np.tanh((c - 1.0571) / 0.0854)
        - 0.6875 * np.tanh((c + 0.0117) / 0.0529)
        - 0.0175 * np.tanh((c - 0.5692) / 0.0875)
    )


def _walls(c: np.ndarray) -> np.ndarray:
    """What a host without free sites, or without lithium, opposes: beyond any potentiostat's compliance."""
    return 4.0 * (np.exp(-c / 0.0015) - np.exp((c - 1.0) / 0.0015))


def _nmc() -> Material:
    c = _grid()
    volts = _nmc532_v(c) + _walls(c)
    return Material("nmc", volts, _park_activity(c), 0.1, 20.0, 2e-15, discharged=0.95, charged=0.335)


def _lco() -> Material:
    c = _grid()
    volts = _lco_v(c) + _walls(c)
    return Material("lco", volts, _symmetric(c), 0.1, 8.0, 5e-15, discharged=0.985, charged=0.45)


def _graphite() -> Material:
    """Against a large flat counter electrode of 3.43 V."""
    c = _grid()
    volts = _graphite_v(c) + _walls(c)
    return Material("graphite", volts, _symmetric(c), 0.05, 10.0, 3e-15, 0.03, 0.92, anode=True, counter_v=3.43)


def _lfp() -> Material:
    """Regular solution with Omega = 4.51 (MPET): particles switch one by one.

    A particle of homogeneous content runs from one spinodal to the other by itself; the phases are given the contents
    of these, so that a front is there exactly as long as that takes.
    """
    c = _grid()
    omega, standard_v = 4.51, 3.422
    volts = standard_v - THERMAL_V * omega * (1.0 - 2.0 * c) + _walls(c)
    half_gap = 0.5 * float(np.sqrt(1.0 - 2.0 / omega))
    phases = (0.5 - half_gap, 0.5 + half_gap)
    return Material("lfp", volts, _symmetric(c), 1.0, 3.0, 0.0, 0.985, 0.015, phases=phases, wave_fraction=0.5)


_MAKERS: dict[str, Callable[[], Material]] = {"nmc": _nmc, "lfp": _lfp, "lco": _lco, "graphite": _graphite}


def material(name: str) -> Material:
    """The material called `name` (`nmc`, `lfp`, `lco`, `graphite`)."""
    return _MAKERS[name]()
