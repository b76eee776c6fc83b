"""The row tables of a run, `daemon.tables.ROW_TABLES`, by pages: one endpoint each, made from its registration."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, create_model

from daemon.api import accept, models
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.results import TABLE_TYPES, ParticleQuery
from daemon.api.runs import RunPath
from daemon.tables import INT_COLUMNS, JSON_COLUMNS, ROW_TABLES, TEXT_COLUMNS, RowTable

MAX_ROWS = 10_000  # about 3 MB of JSON
ALWAYS_KNOWN = ("particle_id", "cycle", "half", "step")


class CycleQuery(ParticleQuery):
    """Which particle and cycle."""

    cycle: int | None = Field(default=None, ge=-(2**31), le=2**31, description="Only this cycle.")


class HalfQuery(CycleQuery):
    """Which particle and half cycle."""

    half: Literal["charge", "discharge", "none"] | None = Field(
        default=None, description="Only this half; `none`: what lies outside halves."
    )


async def page(name: str, call: Call) -> web.Response:
    """A page of the table `name`."""
    media_type = accept.choose(call.request, TABLE_TYPES)
    return await call.read("page", media_type, table=name, asked=call.query.model_dump(exclude_none=True))


def _query(name: str, table: RowTable) -> type[Query]:
    """Filters by the columns that the table has, and pages."""
    base = next((model for model in (HalfQuery, CycleQuery) if set(model.model_fields) <= {*table.columns}), None)
    limit = Field(default=table.page, ge=1, le=MAX_ROWS, description="Most rows answered.")
    return create_model(
        f"{name.capitalize()}Query",
        __base__=base or ParticleQuery,
        after=(int, Field(default=0, ge=0, le=2**62, description="`next_after` of the page before.")),
        limit=(int | None if table.page is None else int, limit),
    )


def _answer(name: str, table: RowTable) -> type[BaseModel]:
    """The published shape: in words of its own where `models` has it, else from the names of the columns."""
    own: dict[str, type[BaseModel]] = {"cycles": models.CycleList, "clips": models.ClipList}
    if name in own:
        return own[name]
    word = name.capitalize()
    fields: dict[str, Any] = {column: (_kind(column), ...) for column in table.columns}
    row: Any = create_model(f"{word}Row", __base__=models.Answer, __doc__=f"{table.title}: one row.", **fields)
    further = Field(description="`after` of the next page; null when this is the last.")
    shape: dict[str, Any] = {"run_id": (str, ...), name: (list[row], ...), "next_after": (int | None, further)}
    answer: type[BaseModel] = create_model(f"{word}List", __base__=models.Answer, __doc__=f"{table.title}.", **shape)
    return answer


def _kind(column: str) -> Any:
    if column in JSON_COLUMNS:
        return list[Any] | dict[str, Any] | None
    kind: Any = int if column in INT_COLUMNS else str if column in TEXT_COLUMNS else float
    return kind if column in ALWAYS_KNOWN else kind | None


def _endpoint(name: str, table: RowTable) -> Endpoint:
    return Endpoint(
        "GET",
        f"/runs/{{run_id}}/{name}",
        partial(page, name),
        f"{table.title}, by pages.",
        path_model=RunPath,
        query=_query(name, table),
        answer=_answer(name, table),
        media_types=TABLE_TYPES,
    )


ENDPOINTS = tuple(_endpoint(name, table) for name, table in ROW_TABLES.items())
