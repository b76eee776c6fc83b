"""The row tables of a run, `daemon.tables.ROW_TABLES`, by pages: one endpoint each, made from its registration."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, create_model

from daemon.api import accept, models
from daemon.api.encode import columns_of, table_bytes
from daemon.api.endpoint import Call, Endpoint, Query
from daemon.api.jsonio import dumps
from daemon.api.results import TABLE_TYPES, ParticleQuery
from daemon.api.runs import RunPath
from daemon.store.reader import RunReader
from daemon.store.rows import json_text
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
    """A page of the table `name`; the header `X-Next-After` has what a table without room for it cannot say."""
    path = (await call.stored_run()).path
    media_type = accept.choose(call.request, TABLE_TYPES)
    asked = call.query.model_dump(exclude_none=True)

    def body() -> tuple[bytes, int | None, dict[str, str]]:
        with RunReader(path) as reader:
            found = reader.page(name, **asked)
            damage = reader.damage_headers
        if media_type == accept.JSON:
            document = {"run_id": call.path.run_id, name: found.rows, "next_after": found.next_after}
            return dumps(document), found.next_after, damage
        columns = columns_of(found.rows, ROW_TABLES[name].columns)
        columns |= {each: [json_text(value) for value in columns[each]] for each in columns if each in JSON_COLUMNS}
        return table_bytes(columns, media_type), found.next_after, damage

    content, next_after, damage = await call.work(body)
    headers = damage if next_after is None else {"X-Next-After": str(next_after), **damage}
    return web.Response(body=content, content_type=media_type, headers=headers)


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
