"""Recordings of the simulated instrument: the HDF5 layout of this field's instruments, and a `truth` group."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np

from hw.drivers import DriverError, checked_options
from hw.twin.electrode import ParticleState
from hw.twin.instrument import FrameTruth, TwinInstrument
from hw.twin.sample import CrowdedError
from hw.twin.settings import TwinOptions

SAMPLE_S = 1.0  # longest time between two rows of the potentiostat


def write_recording(
    path: Path, instrument: TwinInstrument, frames: int, progress: Callable[[int], None] | None = None
) -> None:
    """Take `frames` frames from `instrument` and write them to `path`, replacing it.

    The electrode is driven by the instrument's cycler, or as the caller left it. `progress` is called with the number
    of frames done. `truth` has (frames, P) series, (frames,) series of the microscope, `particles/` columns, `events`
    and `labels` (H, W), index + 1 of the particle that covers most of a pixel, 0 none.
    """
    echem: list[tuple[float, float, float, float]] = []
    with h5py.File(path, "w") as file:
        series = _Series(file, frames, instrument)
        for n in range(frames):
            _run_up(instrument, echem)
            picture, truth = instrument.next_frame()
            echem.append(_cell_row(instrument))
            series.put(n, picture, truth)
            if progress is not None:
                progress(n + 1)
        file["potentiostat_value"] = np.array(echem).T
        _write_attributes(file, instrument)
        _write_truth(file["truth"], instrument)


def _run_up(instrument: TwinInstrument, echem: list[tuple[float, float, float, float]]) -> None:
    """Sample the cell on the way to the next frame when that is far."""
    left_s = instrument.next_t_s - instrument.electrode.t_s
    while left_s > SAMPLE_S * 1.5:
        instrument.advance(SAMPLE_S)
        echem.append(_cell_row(instrument))
        left_s -= SAMPLE_S


def _cell_row(instrument: TwinInstrument) -> tuple[float, float, float, float]:
    """Voltage V, current mA, charge mAh since the start (exact: lithium is conserved), time s."""
    electrode, options = instrument.electrode, instrument.options
    charge_mah = (electrode.soc - options.initial_soc) * options.capacity_mah
    return electrode.voltage_v, electrode.current_ma, charge_mah, electrode.t_s


class _Series:
    """The datasets that grow with the frames."""

    PARTICLE = ("soc", "gradient", "charged_fraction", "front_px", "flux_e")
    FRAME = ("block_id", "t_s", "voltage_v", "current_ma", "cell_soc")
    SCENE = ("drift_y_px", "drift_x_px", "blur_px", "illumination")

    def __init__(self, file: h5py.File, frames: int, instrument: TwinInstrument) -> None:
        shape, count = instrument.microscope.field.shape, instrument.sample.count
        self._movie = file.create_dataset("movie", (frames, *shape), instrument.microscope.dtype, chunks=(1, *shape))
        self._timing = file.create_dataset("camera_timing", (2, frames), "f8")
        truth = file.create_group("truth")
        make = truth.create_dataset
        names = (*self.PARTICLE, *ParticleState.FIELDS)
        self._particle = {name: make(name, (frames, count), "f4") for name in names}
        self._frame = {name: make(name, (frames,), "f8") for name in (*self.FRAME, *self.SCENE)}

    def put(self, n: int, picture: np.ndarray, truth: FrameTruth) -> None:
        """Frame `n`."""
        self._movie[n] = picture
        self._timing[:, n] = truth.block_id, truth.device_t_s
        for name in self.PARTICLE:
            self._particle[name][n] = getattr(truth, name)
        for name in ParticleState.FIELDS:
            self._particle[name][n] = getattr(truth.particles, name)
        for name in self.FRAME:
            self._frame[name][n] = getattr(truth, name)
        for name in self.SCENE:
            self._frame[name][n] = getattr(truth.disturbance, name)


def _write_attributes(file: h5py.File, instrument: TwinInstrument) -> None:
    options, microscope = instrument.options, instrument.microscope
    file.attrs.update(
        pixel_size_nm=options.pixel_size_nm,
        exposure_us=microscope.exposure_us,
        bit_depth=int(microscope.full_scale_dn).bit_length(),
        gain_e_per_dn=microscope.gain_e_per_dn,
        read_noise_e=options.read_noise_e,
        dark_dn=microscope.dark_dn,
        electrode="anode" if instrument.sample.material.anode else "cathode",
        capacity_mah=options.capacity_mah,
        potentiostat_offset_s=0.0,
    )
    if options.publish_flat:
        file["flat"] = microscope.field / microscope.field.mean()


def _write_truth(group: h5py.Group, instrument: TwinInstrument) -> None:
    sample, scene = instrument.sample, instrument.microscope.scene
    group.attrs["options"] = instrument.options.model_dump_json()
    for name in ("y_px", "x_px", "radius_px", "k_hz", "weight", "dead", "folded"):
        group[f"particles/{name}"] = getattr(sample, name)
    group["particles/area_px"] = [shape.area_px for shape in scene.shapes]
    group["particles/axial"] = [shape.axial for shape in scene.shapes]
    group["particles/brightness_e"] = scene.brightness_e
    group["labels"] = scene.labels()
    events = [(event.t_s, event.kind, event.particle, event.magnitude) for event in instrument.events]
    kinds = [("t_s", "f8"), ("kind", h5py.string_dtype()), ("particle", "i4"), ("magnitude", "f8")]
    group["events"] = np.array(events, dtype=kinds)


@click.command()
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="HDF5 file to write.")
@click.option("--frames", default=500, show_default=True, type=click.IntRange(1))
@click.option("--interval-s", default=1.0, show_default=True, type=float, help="Simulated seconds between frames.")
@click.option("--c-rate", default=1.0, show_default=True, type=click.FloatRange(0), help="Of the cycling; 0 rests.")
@click.option("--rest-s", default=60.0, show_default=True, type=click.FloatRange(0), help="Before each half-cycle.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any option of the simulated instrument.")
def main(out: Path, frames: int, interval_s: float, c_rate: float, rest_s: float, settings: tuple[str, ...]) -> None:
    """Write a recording of the simulated instrument, with the truth beside it."""
    given: dict[str, Any] = {"speed": interval_s, "frame_rate_hz": 1.0}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise click.BadParameter(f"'{setting}' is not KEY=VALUE", param_hint="--set")
        given[key] = value
    try:
        options = checked_options(TwinOptions, "twin", given)
        assert isinstance(options, TwinOptions)
        with click.progressbar(length=frames, file=sys.stderr) as bar:
            write_recording(out, TwinInstrument(options, c_rate, rest_s), frames, lambda done: bar.update(1))
    except (DriverError, CrowdedError, OSError) as error:
        click.echo(f"{error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
