"""From a reference image to everything the engine needs: noise model, masks, compiled operator. Once a run.

Live it runs in a process of its own (``python -m daemon.runs.prepare FD``): the segmentation libraries would cost the
daemon a hundred megabytes and a second of its event loop.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from daemon.engine.link import Message, receive, send
from daemon.engine.measures import MaskSet, NoiseModel
from daemon.engine.operator import Operator
from daemon.engine.transfer import Transfer
from daemon.errors import InstrumentError
from daemon.photometry.noise import NoiseHints, resolve_noise
from daemon.recipe import MaskSettings


@dataclass
class Reference:
    """What preparing starts from: (H, W) mean and temporal variance of `frames` frames, and what is known of the
    camera.
    """

    mean_dn: np.ndarray
    variance_dn2: np.ndarray
    frames: int
    bit_depth: int
    hints: NoiseHints
    pixel_size_nm: float | None
    dark_map: np.ndarray | None = None
    flat_map: np.ndarray | None = None
    transfer: Transfer | None = None
    """What the noise is estimated from, where it needs be; mean and variance above when absent."""

    def statistics(self) -> Transfer:
        """`transfer`, or what mean and variance alone amount to."""
        return self.transfer or Transfer(self.mean_dn, self.variance_dn2, self.frames, self.frames - 1)


@dataclass
class Prepared:
    """What preparing gives."""

    masks: MaskSet
    operator: Operator
    noise: NoiseModel


def prepare(reference: Reference, settings: MaskSettings) -> Prepared:
    """Resolve the noise, find the particles, compile the operator. Raises `RunError` or `RecordingError`."""
    from daemon.photometry.compile import compile_operator
    from daemon.photometry.defects import find_defects, repair
    from daemon.photometry.masks import find_particles

    hints = reference.hints.with_dark(reference.dark_map)
    noise = resolve_noise(hints, reference.statistics(), reference.bit_depth)
    dark = noise.dark_dn if reference.dark_map is None else reference.dark_map
    flat = 1.0 if reference.flat_map is None else reference.flat_map
    level_dn = ((reference.mean_dn - dark) / flat).astype(np.float32)
    defects = find_defects(level_dn * np.float32(noise.gain_e_per_dn), noise, reference.frames)
    repair(level_dn, defects)
    masks = find_particles(
        level_dn + np.float32(noise.dark_dn), noise, reference.frames, settings, reference.pixel_size_nm
    )
    operator = compile_operator(level_dn * np.float32(noise.gain_e_per_dn), masks, noise, reference.frames, defects)
    return Prepared(masks, operator, noise)


def reference_message(reference: Reference, settings: MaskSettings) -> Message:
    """The order for the preparing process."""
    arrays = {"mean_dn": reference.mean_dn, "variance_dn2": reference.variance_dn2}
    for name in ("dark_map", "flat_map"):
        if getattr(reference, name) is not None:
            arrays[name] = getattr(reference, name)
    if reference.transfer is not None and not reference.hints.with_dark(reference.dark_map).complete:
        arrays |= {f"transfer.{name}": array for name, array in reference.transfer.arrays().items()}
    fields: dict[str, Any] = {
        "frames": reference.frames,
        "bit_depth": reference.bit_depth,
        "hints": asdict(reference.hints),
        "pixel_size_nm": reference.pixel_size_nm,
        "masks": settings.model_dump(),
    }
    return Message("prepare", fields, arrays)


def prepared_from(message: Message) -> Prepared:
    """The preparing process' answer."""
    arrays, fields = message.arrays, message.fields
    table = {name.removeprefix("table."): array for name, array in arrays.items() if name.startswith("table.")}
    operator = {name.removeprefix("operator."): array for name, array in arrays.items() if name.startswith("operator.")}
    masks = MaskSet(
        arrays["labels"], arrays["particle_id"], arrays["y_px"], arrays["x_px"], table, fields["psf_sigma_px"],
        fields["pixel_size_nm"], fields["version"], arrays.get("excluded"),
    )  # fmt: skip
    return Prepared(masks, Operator.from_arrays(operator), NoiseModel(**fields["noise"]))


def _prepared_message(prepared: Prepared) -> Message:
    masks = prepared.masks
    arrays = {name: getattr(masks, name) for name in ("labels", "particle_id", "y_px", "x_px")}
    if masks.excluded is not None:
        arrays["excluded"] = masks.excluded
    arrays |= {f"table.{name}": array for name, array in masks.table.items()}
    arrays |= {f"operator.{name}": array for name, array in prepared.operator.arrays().items()}
    fields = {
        "psf_sigma_px": masks.psf_sigma_px,
        "pixel_size_nm": masks.pixel_size_nm,
        "version": masks.version,
        "noise": asdict(prepared.noise),
    }
    return Message("prepared", fields, arrays)


def _answer(order: Message) -> Message:
    fields, arrays = order.fields, order.arrays
    transfer = {name.removeprefix("transfer."): array for name, array in arrays.items() if name.startswith("transfer.")}
    reference = Reference(
        arrays["mean_dn"], arrays["variance_dn2"], fields["frames"], fields["bit_depth"],
        NoiseHints(**fields["hints"]), fields["pixel_size_nm"], arrays.get("dark_map"), arrays.get("flat_map"),
        Transfer.from_arrays(transfer) if transfer else None,
    )  # fmt: skip
    try:
        return _prepared_message(prepare(reference, MaskSettings(**fields["masks"])))
    except InstrumentError as error:
        return Message("failed", {"code": error.code, "detail": error.detail})


def main(descriptor: int) -> None:
    """Answer one order on the socket `descriptor`."""
    with socket.socket(fileno=descriptor) as link:
        order = receive(link)
        if order is not None:
            send(link, _answer(order))


if __name__ == "__main__":
    main(int(sys.argv[1]))
