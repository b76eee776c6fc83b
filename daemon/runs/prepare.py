"""From a reference image to everything the engine needs: noise model, masks, compiled operator. Once a run, and once
more for each edit of its masks.

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
from daemon.mask_edits import EDITS, MaskEdit
from daemon.photometry.noise import NoiseHints, resolve_noise
from daemon.recipe import MaskSettings

OPTIONAL_ARRAYS = ("excluded", "active", "parent_id")


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
    notes: tuple[str, ...] = ()
    """What a reader of the run should know of the maps; the preparing process is not told."""

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
    from daemon.photometry.defects import find_defects, find_hot, repair
    from daemon.photometry.masks import find_particles

    hints = reference.hints.with_dark(reference.dark_map)
    noise = resolve_noise(hints, reference.statistics(), reference.bit_depth)
    level_dn = level(reference, noise)
    defects = find_defects(level_dn * np.float32(noise.gain_e_per_dn), noise, reference.frames)
    if reference.dark_map is not None:
        defects = np.union1d(defects, find_hot(reference.dark_map, noise)).astype(np.int32)
    repair(level_dn, defects)
    masks = find_particles(
        level_dn + np.float32(noise.dark_dn), noise, reference.frames, settings, reference.pixel_size_nm
    )
    operator = compile_operator(level_dn * np.float32(noise.gain_e_per_dn), masks, noise, reference.frames, defects)
    return Prepared(masks, operator, noise)


def edit(
    reference: Reference,
    masks: MaskSet,
    noise: NoiseModel,
    defects: np.ndarray,
    edits: list[MaskEdit],
    settings: MaskSettings,
) -> tuple[Prepared, list[int | None]]:
    """Carry out edits of `masks` and compile them from the same reference, of which `variance_dn2` is not read.

    Noise and bad pixels stay those of the run. The second value is the id of the particle that each edit made. Raises
    `MaskError`.
    """
    from daemon.photometry.compile import compile_operator
    from daemon.photometry.defects import repair
    from daemon.photometry.edits import edit_masks

    level_dn = level(reference, noise)
    repair(level_dn, defects)
    edited, made = edit_masks(masks, edits, level_dn + np.float32(noise.dark_dn), noise, settings)
    level_e = level_dn * np.float32(noise.gain_e_per_dn)
    operator = compile_operator(level_e, edited.measured(), noise, reference.frames, defects)
    return Prepared(edited, operator, noise), made


def level(reference: Reference, noise: NoiseModel) -> np.ndarray:
    """(H, W) float32 DN above the dark level, the flat field divided out."""
    dark = noise.dark_dn if reference.dark_map is None else reference.dark_map
    flat = 1.0 if reference.flat_map is None else reference.flat_map
    return ((reference.mean_dn - dark) / flat).astype(np.float32)


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


def edit_message(reference: Reference, before: Prepared, edits: list[MaskEdit], settings: MaskSettings) -> Message:
    """The order for the preparing process to edit masks."""
    order = reference_message(reference, settings)
    fields, arrays = _masks_parts(before.masks)
    arrays |= {f"reference.{name}": array for name, array in order.arrays.items()}
    arrays["defects"] = before.operator.defects
    fields |= {"reference": order.fields, "noise": asdict(before.noise)}
    return Message("edit", fields | {"edits": EDITS.dump_python(edits, mode="json")}, arrays)


def edited_from(message: Message) -> tuple[Prepared, list[int | None]]:
    """The preparing process' answer to that."""
    return prepared_from(message), message.fields["made"]


def prepared_from(message: Message) -> Prepared:
    """The preparing process' answer."""
    arrays = message.arrays
    operator = {name.removeprefix("operator."): array for name, array in arrays.items() if name.startswith("operator.")}
    return Prepared(_masks_from(message), Operator.from_arrays(operator), NoiseModel(**message.fields["noise"]))


def _masks_from(message: Message) -> MaskSet:
    arrays, fields = message.arrays, message.fields
    table = {name.removeprefix("table."): array for name, array in arrays.items() if name.startswith("table.")}
    return MaskSet(
        arrays["labels"], arrays["particle_id"], arrays["y_px"], arrays["x_px"], table, fields["psf_sigma_px"],
        fields["pixel_size_nm"], fields["version"], **{name: arrays.get(name) for name in OPTIONAL_ARRAYS},
    )  # fmt: skip


def _prepared_message(prepared: Prepared) -> Message:
    fields, arrays = _masks_parts(prepared.masks)
    arrays |= {f"operator.{name}": array for name, array in prepared.operator.arrays().items()}
    return Message("prepared", fields | {"noise": asdict(prepared.noise)}, arrays)


def _masks_parts(masks: MaskSet) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Masks as plain fields and arrays; `_masks_from` puts them together."""
    arrays = {name: getattr(masks, name) for name in ("labels", "particle_id", "y_px", "x_px")}
    arrays |= {name: getattr(masks, name) for name in OPTIONAL_ARRAYS if getattr(masks, name) is not None}
    arrays |= {f"table.{name}": array for name, array in masks.table.items()}
    return {name: getattr(masks, name) for name in ("psf_sigma_px", "pixel_size_nm", "version")}, arrays


def _reference_from(fields: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reference:
    transfer = {name.removeprefix("transfer."): array for name, array in arrays.items() if name.startswith("transfer.")}
    return Reference(
        arrays["mean_dn"], arrays["variance_dn2"], fields["frames"], fields["bit_depth"],
        NoiseHints(**fields["hints"]), fields["pixel_size_nm"], arrays.get("dark_map"), arrays.get("flat_map"),
        Transfer.from_arrays(transfer) if transfer else None,
    )  # fmt: skip


def _prepare_order(order: Message) -> Message:
    reference = _reference_from(order.fields, order.arrays)
    return _prepared_message(prepare(reference, MaskSettings(**order.fields["masks"])))


def _edit_order(order: Message) -> Message:
    fields, arrays = order.fields, order.arrays
    own = {name.removeprefix("reference."): array for name, array in arrays.items() if name.startswith("reference.")}
    prepared, made = edit(
        _reference_from(fields["reference"], own),
        _masks_from(order),
        NoiseModel(**fields["noise"]),
        np.array(arrays["defects"]),
        EDITS.validate_python(fields["edits"]),
        MaskSettings(**fields["reference"]["masks"]),
    )
    answer = _prepared_message(prepared)
    answer.fields["made"] = made
    return answer


ORDERS = {"prepare": _prepare_order, "edit": _edit_order}


def _answer(order: Message) -> Message:
    try:
        return ORDERS[order.kind](order)
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
