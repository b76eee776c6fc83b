"""The simulated instrument without a clock: electrode and camera stepped together, with the truth of every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hw.twin.cycler import Cycler
from hw.twin.disturbances import Disturbance, Disturbances
from hw.twin.electrode import Electrode, ParticleState, TruthEvent, rich_fraction
from hw.twin.optics import Microscope
from hw.twin.phases import PhaseWatch
from hw.twin.sample import make_sample
from hw.twin.settings import TwinOptions


@dataclass(frozen=True)
class FrameTruth:
    """What really was when a frame was taken; arrays are (P,) unless said."""

    block_id: int
    t_s: float
    """Mid-exposure, simulated seconds since the instrument began."""
    device_t_s: float
    """`t_s` as the camera stamps it, with its jitter."""
    voltage_v: float
    current_ma: float
    cell_soc: float
    disturbance: Disturbance
    particles: ParticleState
    soc: np.ndarray
    """Each particle's own, 0 at the discharged and 1 at the charged end of the material's window."""
    gradient: np.ndarray
    """soc of the outermost less that of the innermost quarter of the area; NaN for fronts along an axis."""
    charged_fraction: np.ndarray
    """Share in the charged phase; NaN for a solid solution."""
    front_px: np.ndarray
    """Depth of the front from the edge, or its way along the axis; NaN without a front."""
    flux_e: np.ndarray
    """Electrons the particle adds to a frame at nominal exposure and even light."""


class TwinInstrument:
    """Drive `electrode` as you like (or leave it to `cycler`), then take `next_frame` after frame.

    Frame n is taken at n * speed / frame_rate_hz simulated seconds. Same options, same drive: the same frames, bit for
    bit. The constructor draws the sample (a second for 300 particles). Raises `CrowdedError`.
    """

    def __init__(self, options: TwinOptions, c_rate: float | None = None, rest_s: float = 0.0) -> None:
        self.options = options
        self.sample = make_sample(options)
        self.electrode = Electrode(self.sample)
        self.cycler = None if c_rate is None else Cycler(self.electrode, c_rate, rest_s)
        self.microscope = Microscope(self.sample, options)
        self.disturbances = Disturbances(options, options.seed, options.pixel_size_nm)
        self.interval_s = options.speed / options.frame_rate_hz
        self.events: list[TruthEvent] = []
        """Everything that happened so far. A crack's magnitude is the relative change of the particle's flux."""
        self._block = 0
        self._phases = PhaseWatch(self._charged_fraction())

    @property
    def next_t_s(self) -> float:
        """Simulated time of the next frame."""
        return self._block * self.interval_s

    def advance(self, duration_s: float) -> None:
        """Let simulated time pass without taking frames."""
        (self.cycler or self.electrode).advance(duration_s)

    def next_frame(self, out: np.ndarray | None = None) -> tuple[np.ndarray, FrameTruth]:
        """(picture, truth) of the next frame the camera keeps: (H, W) uint16 (uint8 for Mono8), in `out` if given.

        Packed formats come unpacked.
        """
        lost = 0
        while True:
            block, t_s = self._block, self.next_t_s
            self._block += 1
            self.advance(max(t_s - self.electrode.t_s, 0.0))
            disturbance = self.disturbances.at(t_s)
            if not disturbance.dropped:
                break
            lost += 1
        if lost:
            self.events.append(TruthEvent(t_s, "frames_dropped", -1, lost))
        known = len(self.events)
        self._collect_events()
        picture = np.empty(self.microscope.field.shape, self.microscope.dtype) if out is None else out
        scene = self.microscope.scene
        scene.show(self.electrode.state, budget=self.sample.count)
        for n, event in enumerate(self.events[known:], known):
            if event.kind in ("crack", "crack_closed"):
                self.events[n] = replace(event, magnitude=scene.crack_changes.get(event.particle, event.magnitude))
        self.microscope.expose(disturbance, picture)
        return picture, self._truth(block, t_s, disturbance)

    def _truth(self, block: int, t_s: float, disturbance: Disturbance) -> FrameTruth:
        electrode, scene = self.electrode, self.microscope.scene
        return FrameTruth(
            block_id=block,
            t_s=t_s,
            device_t_s=t_s + disturbance.jitter_s,
            voltage_v=electrode.voltage_v,
            current_ma=electrode.current_ma,
            cell_soc=electrode.soc,
            disturbance=disturbance,
            particles=electrode.state.copy(),
            soc=np.asarray(self.sample.material.soc(electrode.state.c)),
            gradient=self._gradient(),
            charged_fraction=self._charged_fraction(),
            front_px=self._fronts(),
            flux_e=scene.flux_e(electrode.state),
        )

    def _gradient(self) -> np.ndarray:
        scene = self.microscope.scene
        soc = np.asarray(self.sample.material.soc(scene.part_contents(self.electrode.state).astype(float)))
        quarter = scene.parts // 4
        gradient = soc[:, :quarter].mean(axis=1) - soc[:, -quarter:].mean(axis=1)
        gradient[[shape.axial for shape in scene.shapes]] = np.nan
        return np.asarray(gradient)

    def _charged_fraction(self) -> np.ndarray:
        rich = rich_fraction(self.sample, self.electrode.state.c)
        return rich if self.sample.material.anode else 1.0 - rich

    def _fronts(self) -> np.ndarray:
        state = self.electrode.state
        rich = rich_fraction(self.sample, state.c)
        entered = np.where(state.invader > 0.5, 1.0 - rich, rich)
        shapes = self.microscope.scene.shapes
        return np.array(
            [shape.front_px(u) if 0.0 < u < 1.0 else np.nan for shape, u in zip(shapes, entered, strict=True)]
        )

    def _collect_events(self) -> None:
        self.events += self._phases.look(self.electrode.t_s, self._charged_fraction())
        for source in (self.electrode.events, self.disturbances.events):
            self.events += source
            source.clear()
