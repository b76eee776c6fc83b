"""The published document, the routes, and docs/api.md are the same API."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from daemon.api.app import ENDPOINTS, build_app
from daemon.api.media import JSON
from daemon.api.models import Answer
from daemon.api.page import PAGE_PATHS, SCRIPT_PATH
from daemon.tables import ROW_TABLES
from tests.daemon.api.conftest import Served
from tests.daemon.api.fakes import fakes

DOCS = Path(__file__).parents[3] / "docs" / "api.md"
SCIENCE = DOCS.with_name("science.md")


async def test_the_document_is_valid(served: Served) -> None:
    document = await served.json("GET", "/openapi.json")
    validate(document)
    assert document["info"]["version"] == "1.2.3"


async def test_document_and_routes_are_equal(served: Served, tmp_path: Path) -> None:
    document = await served.json("GET", "/openapi.json")
    published = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    app = build_app(fakes(tmp_path).parts())
    routed = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    pages = {("GET", path) for path in (*PAGE_PATHS, SCRIPT_PATH)}
    assert {pair for pair in routed if pair[0] != "HEAD"} - pages == published
    assert {("HEAD", path) for method, path in routed if method == "GET"} <= routed


async def test_operations_have_distinct_names_and_known_references(served: Served) -> None:
    document = await served.json("GET", "/openapi.json")
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert references <= set(document["components"]["schemas"])
    for operation in operations:
        assert operation["summary"].endswith(".")
        assert "default" in operation["responses"]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
def test_every_endpoint_and_parameter_is_documented(endpoint: Any) -> None:
    section = sections()[f"{endpoint.method} {endpoint.path}"]
    scope = f"Scope `{endpoint.scope}`" if endpoint.scope else "Open."
    assert section.startswith(scope)
    for name, field in (endpoint.query.model_fields if endpoint.query else {}).items():
        assert f"`{field.alias or name}`" in section
    for name in endpoint.body.model_fields if endpoint.body and endpoint.path != "/runs" else ():
        assert f"`{name}`" in section


@pytest.mark.parametrize("name", ROW_TABLES)
def test_every_column_of_a_row_table_is_explained(name: str) -> None:
    """In the endpoint's section, or in the section of science.md that it leads to; `x_sigma` by what `x` is."""
    section = sections()[f"GET /runs/{{run_id}}/{name}"]
    pages = section + (SCIENCE.read_text(encoding="utf-8") if "science.md#" in section else "")
    for column in set(ROW_TABLES[name].columns) - {"particle_id", "cycle", "half", "t_s"}:
        assert f"`{column}`" in pages or re.search(r"_(trend|sigma)\b|_sigma_", column), column


def sections() -> dict[str, str]:
    """The text under each endpoint's heading."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.findall(r"^### `(\w+ /[^`]*)`\n\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    return dict(found)


def test_a_file_is_of_any_type_that_operations_make() -> None:
    made = {media for each in ENDPOINTS if each.answers_operation for media in each.media_types} - {JSON}
    (file,) = (each for each in ENDPOINTS if each.path.endswith("/file"))
    assert set(file.media_types) == made


def test_docs_name_no_endpoint_that_is_not() -> None:
    assert set(sections()) == {f"{endpoint.method} {endpoint.path}" for endpoint in ENDPOINTS}


@pytest.mark.parametrize(
    ("path", "model"),
    [(e.path, e.answer) for e in ENDPOINTS if e.method == "GET" and e.answer and "{operation" not in e.path],
)
async def test_answers_have_the_published_shape(with_run: Served, path: str, model: type[Answer]) -> None:
    headers = {"Accept": "application/json"}
    body = await with_run.json("GET", path.replace("{run_id}", "r1"), headers=headers)
    model.model_validate(body)


async def test_operations_have_the_published_shape(served: Served) -> None:
    from daemon.api.models import OperationReply

    operation = await served.json("POST", "/selftest", 202)
    OperationReply.model_validate(operation)
    found = await served.finished(operation)
    OperationReply.model_validate(found)
    assert found["result"] == {"passed": True, "noise": None}
