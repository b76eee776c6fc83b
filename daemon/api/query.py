"""Query parameters as they come: comma-separated lists, one value a name, wrong ones named."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from aiohttp import web
from multidict import MultiMapping
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from daemon.api.endpoint import Query
from daemon.api.problems import fields_error
from daemon.errors import ApiError, ApiReason, NamedFieldsError

MAX_POINTS = 100_000
MAX_LISTED = 1000
MAX_ID = 999_999_999  # a thousand of them fit the line of a request


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


ParticleId = Annotated[int, Field(ge=0, le=MAX_ID)]
ParticleIds = Annotated[tuple[ParticleId, ...], Field(max_length=MAX_LISTED), BeforeValidator(_split)]
Names = Annotated[tuple[str, ...], Field(max_length=100), BeforeValidator(_split)]
Seconds = Annotated[float, Field(ge=-1e12, le=1e12)]


class Span(Query):
    """A span of run time."""

    from_s: Seconds | None = Field(default=None, alias="from", description="Earliest `t_s`, seconds.")
    to_s: Seconds | None = Field(default=None, alias="to", description="Latest `t_s`, seconds.")

    @model_validator(mode="after")
    def _in_order(self) -> Span:
        if self.from_s is not None and self.to_s is not None and self.from_s > self.to_s:
            raise ValueError(f"from = {self.from_s:g} must not be after to = {self.to_s:g}")
        return self


def parse_query(model: type[Query] | None, given: MultiMapping[str]) -> Query | None:
    """The query as its model. Raises `NamedFieldsError`."""
    names = [] if model is None else [field.alias or name for name, field in model.model_fields.items()]
    for name in given:
        if name not in names:
            raise NamedFieldsError([{"field": name[:100], "detail": _unknown(name, names)}])
        if len(given.getall(name)) > 1:
            raise NamedFieldsError([{"field": name, "detail": "is given more than once"}])
    if model is None:
        return None
    try:
        query = model.model_validate(dict(given))
    except ValidationError as error:
        raise fields_error(error, "query") from None
    return query


def parse_path(model: type[Query] | None, request: web.Request) -> Query | None:
    """The path's parameters as their model. Raises `ApiError` (NOT_FOUND): no such resource can exist."""
    if model is None:
        return None
    try:
        return model.model_validate(dict(request.match_info))
    except ValidationError as error:
        wrong = fields_error(error)
        raise ApiError(ApiReason.NOT_FOUND, f"there is nothing at {request.path[:200]}: {wrong.detail}") from None


def _unknown(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    if near:
        return f"is no parameter of this request; did you mean '{near[0]}'?"
    return f"is no parameter of this request, which has: {', '.join(names) or 'none'}"
