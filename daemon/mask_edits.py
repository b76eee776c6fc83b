"""What may be asked of a run's masks: the body of `PATCH /runs/{run_id}/masks`, and what a version says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from daemon.recipe import Strict

MAX_EDITS = 200
"""Edits of one request."""
MAX_POINTS = 2000
"""Points of an outline."""

Point = Annotated[list[float], Field(min_length=2, max_length=2)]
"""y and x, pixels of the reference frame; (0, 0) is the centre of the first pixel."""
Outline = Annotated[list[Point], Field(max_length=MAX_POINTS)]
ParticleId = Annotated[int, Field(ge=0)]


class RemoveEdit(Strict):
    """Measure a particle no more: it keeps its row and its id, and is `lost`."""

    action: Literal["remove"]
    particle_id: ParticleId


class ReplaceEdit(Strict):
    """Remove a particle and add another, whose `parent_id` it is: F0 belongs to a mask."""

    action: Literal["replace"]
    particle_id: ParticleId
    outline_px: Outline


class AddEdit(Strict):
    """A new particle, under a new id."""

    action: Literal["add"]
    outline_px: Outline


MaskEdit = Annotated[RemoveEdit | ReplaceEdit | AddEdit, Field(discriminator="action")]
EDITS: TypeAdapter[list[MaskEdit]] = TypeAdapter(list[MaskEdit])


class MaskChange(Strict):
    """Edits that take effect together, between two frames, or not at all."""

    edits: list[MaskEdit] = Field(min_length=1)
    """Carried out in order: each sees what those before it left."""
    version: int | None = Field(default=None, ge=1)
    """The version that the edits are meant for; refused when it is not the newest."""


@dataclass(frozen=True)
class MaskVersion:
    """One version of a run's masks."""

    version: int
    from_frame: int
    """Number of the first frame measured by it."""
    utc: str
    """Wall clock when it took effect, ISO 8601; empty where not known."""
    actor: str = ""
    """Who edited, as the audit names it; empty for the first."""
    edits: list[dict[str, Any]] = field(default_factory=list)
    """As asked for; those that made a particle carry its `new_particle_id`."""
    particles: int = 0
    """Particles that are measured."""
