"""One scene under test: prepared as the product prepares a run, measured by the product's pipeline alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from daemon.engine.measures import MeasureBatch
from daemon.engine.operator import Operator
from daemon.engine.pipeline import Pipeline, PipelineSettings
from daemon.photometry.compile import compile_operator
from daemon.photometry.noise import NoiseHints
from daemon.recipe import MaskSettings
from daemon.runs.prepare import Prepared, Reference, prepare
from hw.camera.contract import FrameStamp
from tests.accuracy.plain import UPSAMPLING, PlainPhotometry
from tests.disturbed import EXPOSURE_RATE_HZ, PIXEL_NM, Disturbances, Exposer, Stage
from tests.measuring import mask_and_ring_bound, noise_of, true_masks
from tests.scenes import PoissonScene

BATCH_FRAMES = 5
"""`take` is called as often as the live engine does at 100 frames/s."""
REFERENCE_EXPOSURES = 50


@dataclass
class Series:
    """N frames as the pipeline measured them, P particles it found."""

    t_s: np.ndarray
    flux_e: np.ndarray
    """(N, P)"""
    sigma_e: np.ndarray
    """(N, P)"""
    drift_px: np.ndarray
    """(N, 2) y, x"""
    illumination: np.ndarray
    baseline_e: np.ndarray
    """(P,) F0"""

    @property
    def contrast(self) -> np.ndarray:
        """(N, P) F/F0 - 1."""
        return self.flux_e / self.baseline_e - 1.0


class Subject:
    """A scene, the operator prepared from its first look at it, and which found particle is which of the scene's.

    `found` False takes the scene's true outlines as masks. The reference is of `reference_exposures` exposures, all of
    the mean frame `first_e`, the scene at rest by default.
    """

    prepared: Prepared
    """What preparing found; not there with true masks."""

    def __init__(
        self,
        scene: PoissonScene,
        *,
        exposures: int = 1,
        reference_exposures: int = REFERENCE_EXPOSURES,
        first_e: np.ndarray | None = None,
        found: bool = True,
        stream: int = 0,
    ) -> None:
        self.scene = scene
        self.expose = Exposer(scene, exposures, stream)
        frames = reference_exposures / exposures
        if frames != int(frames):
            raise ValueError(
                f"a reference of {reference_exposures} exposures is no whole number of sums of {exposures}"
            )
        mean_e = scene.mean_e() if first_e is None else first_e
        self.reference_dn = self.expose.mean_dn(mean_e, int(frames))
        self.labels, self.operator, y_px, x_px = self._prepare(int(frames), found)
        self.which = match(scene, y_px, x_px)

    def _prepare(self, frames: int, found: bool) -> tuple[np.ndarray, Operator, np.ndarray, np.ndarray]:
        camera = self.expose
        if found:
            hints = NoiseHints(camera.gain_e_per_dn, camera.read_noise_e, camera.dark_dn)
            reference = Reference(
                self.reference_dn, np.zeros_like(self.reference_dn), frames, camera.bit_depth, hints, PIXEL_NM
            )
            prepared = self.prepared = prepare(reference, MaskSettings())
            masks = prepared.masks
            return masks.labels, prepared.operator, masks.y_px, masks.x_px
        if camera.exposures > 1:
            raise ValueError("true masks are for single exposures")
        masks = true_masks(self.scene)
        reference_e = ((self.reference_dn - camera.dark_dn) * camera.gain_e_per_dn).astype(np.float32)
        operator = compile_operator(reference_e, masks, noise_of(self.scene), frames)
        return masks.labels, operator, masks.y_px, masks.x_px

    @property
    def matched(self) -> np.ndarray:
        """(P,) bool: measured particles that are particles of the scene."""
        return self.which >= 0

    @property
    def bound(self) -> np.ndarray:
        """(P,) relative noise of a hard true mask and a ring in one frame; NaN for what is no particle of the scene."""
        return self.of_scene(mask_and_ring_bound(self.scene)) / np.sqrt(self.expose.exposures)

    def of_scene(self, values: np.ndarray) -> np.ndarray:
        """(P,) the scene's values in the order of the measured particles, NaN where there is none."""
        return np.where(self.matched, np.asarray(values, float)[self.which], np.nan)

    def plain(self, upsampling: int = UPSAMPLING) -> PlainPhotometry:
        """The plain pipeline for the same reference and outlines."""
        dark_dn = self.expose.dark_dn
        return PlainPhotometry(self.reference_dn - dark_dn, self.labels, dark_dn, upsampling)

    def pipeline(self, baseline_s: float) -> Pipeline:
        """A pipeline of the product for this scene."""
        rate_hz = EXPOSURE_RATE_HZ / self.expose.exposures
        return Pipeline(self.operator, PipelineSettings(self.expose.bit_depth, rate_hz, baseline_s))

    def measure(self, frames: Iterable[np.ndarray], baseline_s: float = 1.0) -> Series:
        """All `frames` (H, W) DN through a new pipeline; F0 from its first `baseline_s`."""
        measuring = Measuring(self.pipeline(baseline_s), self.expose.exposures / EXPOSURE_RATE_HZ)
        for dn in frames:
            measuring.add(dn)
        return measuring.finish()


class Measuring:
    """A pipeline fed frame by frame, `step_s` apart, and emptied as the live engine does."""

    def __init__(self, pipeline: Pipeline, step_s: float) -> None:
        self._pipeline, self._step_s = pipeline, step_s
        self._batches: list[MeasureBatch] = []
        self._frames = 0

    def add(self, dn: np.ndarray) -> None:
        """Measure one (H, W) frame."""
        t_s = self._frames * self._step_s
        self._pipeline.add(dn, FrameStamp(self._frames, t_s, t_s))
        self._frames += 1
        if len(self._pipeline) == BATCH_FRAMES:
            self._take()

    def finish(self) -> Series:
        """All that was measured; F0 is of what there is when the baseline was longer."""
        self._pipeline.close_baseline()
        self._take()
        baseline = self._batches[-1].baseline_flux_e
        flux = self._joined("flux_e")
        drift = np.column_stack([self._joined("drift_y_px"), self._joined("drift_x_px")])
        return Series(
            t_s=self._joined("t_s"),
            flux_e=flux,
            sigma_e=self._joined("flux_sigma_e"),
            drift_px=drift,
            illumination=self._joined("illumination"),
            baseline_e=flux.mean(axis=0) if baseline is None else baseline,
        )

    def _take(self) -> None:
        batch = self._pipeline.take()
        if batch is not None:
            self._batches.append(batch)

    def _joined(self, name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in self._batches]).astype(float)


def match(scene: PoissonScene, y_px: np.ndarray, x_px: np.ndarray) -> np.ndarray:
    """(P,) index of the scene's particle whose centre lies nearest, within a third of its radius; -1 without."""
    distance = np.hypot(y_px[:, None] - scene.y_px, x_px[:, None] - scene.x_px)
    nearest = distance.argmin(axis=1)
    close = distance[np.arange(len(nearest)), nearest] < scene.radii_px[nearest] / 3
    return np.where(close, nearest, -1)


def moving(stage: Stage, expose: Exposer, disturbances: Disturbances) -> Iterable[np.ndarray]:
    """Noisy frames of `stage` under `disturbances`."""
    for drift, blur, illumination in zip(
        disturbances.drift_px, disturbances.blur_px2, disturbances.illumination, strict=True
    ):
        yield expose(stage.mean_e(drift, blur, illumination))
