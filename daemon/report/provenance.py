"""What every number of the report can be traced to."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from daemon.report.material import Material
from daemon.report.page import Html, Part, Section, Table, shown

ORIGINS = (
    ("gain_e_per_dn", "gain_origin", "gain_sigma_e_per_dn", "gain / (e/DN)"),
    ("read_noise_e", "read_noise_origin", "read_noise_sigma_e", "read noise / e"),
    ("dark_dn", "dark_origin", "dark_sigma_dn", "dark level / DN"),
)
MAX_FAULTS = 50


def section(material: Material) -> Section:
    """Software, camera, noise model, masks, clocks, notes, faults, recipe and the file's hash."""
    about = material.run.metadata
    parts: list[Part] = [Table(("", ""), _facts(material)), *_noise_model(about), *_versions(material)]
    parts += [str(note) for note in about.get("notes") or []]
    if material.faults:
        rows = [(row["code"], row["detail"], row["t_s"], row["utc"]) for row in material.faults[:MAX_FAULTS]]
        more = f"The first {MAX_FAULTS} of {len(material.faults)}." if len(material.faults) > MAX_FAULTS else ""
        parts.append(Table(("fault", "what", "t_s", "UTC"), rows, more))
    if about.get("recipe"):
        text = escape(json.dumps(about["recipe"], indent=2, sort_keys=True))
        parts.append(Html(f"<details><summary>The run's recipe</summary><pre>{text}</pre></details>"))
    return Section("provenance", "Provenance", parts)


def _facts(material: Material) -> list[tuple[str, Any]]:
    about = material.run.metadata
    camera = about.get("camera") or {}
    offset, sigma = about.get("potentiostat_offset_s"), about.get("clock_offset_sigma_s")
    clocks = "not stored: one clock, or a recording whose times were taken as they are"
    if offset is not None:
        clocks = f"{offset:.6g} s" + (f" +- {sigma:.2g} s" if sigma is not None else "")
    pixel = about.get("pixel_size_nm")
    rows: list[tuple[str, Any]] = [
        ("run", about.get("run_id")), ("run file, SHA-256", material.sha256), ("began, UTC", about.get("started_utc")),
        ("wall clock followed a time server", _yes(about.get("clock_synchronised"))),
        ("software", f"photometryd {about.get('software_version')}, Python {about.get('python_version')}"),
        ("source", about.get("source")),
        ("camera", " ".join(str(camera.get(k) or "") for k in ("model", "serial")).strip()),
        ("exposure / µs", camera.get("exposure_us")), ("frame rate / Hz", camera.get("frame_rate_hz")),
        ("pixel size / nm", pixel if pixel is not None else "not known: no length is in micrometres"),
        ("PSF, one sigma / px", about.get("psf_sigma_px")), ("electrode", about.get("electrode")),
        ("capacity / mAh", about.get("capacity_mah") if about.get("capacity_mah") is not None else "not known"),
        ("1C refers to", material.capacity_origin),
        ("dark frame, flat frame", f"{_yes(about.get('dark_frame'))}, {_yes(about.get('flat_frame'))}"),
        ("defective pixels", len(about.get("defective_pixels") or [])), ("camera time minus potentiostat time", clocks),
    ]  # fmt: skip
    return [(name, "not known" if value in ("", None) else shown(value)) for name, value in rows]


def _noise_model(about: dict[str, Any]) -> list[Part]:
    model = about.get("noise_model")
    if not model:
        return ["The run does not say how DN became electrons."]
    rows = [(title, model.get(name), model.get(sigma), model.get(origin)) for name, origin, sigma, title in ORIGINS]
    return [Table(("noise model", "value", "one sigma", "known how"), rows)]


def _versions(material: Material) -> list[Part]:
    rows = [(v.version, v.from_frame, v.utc, v.actor, len(v.edits), v.particles) for v in material.versions]
    if not rows:
        return ["The run file holds no masks."]
    return [Table(("masks, version", "from frame", "UTC", "by", "edits", "particles"), rows)]


def _yes(value: Any) -> str:
    return "not known" if value is None else "yes" if value else "no"
