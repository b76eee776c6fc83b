"""The OpenAPI 3.1 document, made from the same records as the routes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from daemon.api import problems
from daemon.api.accept import JSON
from daemon.api.endpoint import Endpoint, Query
from daemon.api.models import OperationReply, Problem

REFUSALS = {
    400: "A parameter or field is wrong; `errors` names each.",
    401: "There is no token, or not one that is known.",
    403: "The token's scope is too small, or a page of another site sent this.",
    404: "There is no such thing.",
    406: "None of the media types asked for can be given.",
    408: "The request did not come whole in time.",
    409: "Not in the present state.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "The instrument cannot do this, or the Idempotency-Key was used for something else.",
    429: "Too many requests; Retry-After says how long to wait.",
    431: "The request's head is too large.",
    503: "Too much is going on, or a device is not there; Retry-After says when to try again.",
    507: "The instrument's disk has no room for it.",
}
REF = "#/components/schemas/{model}"


def document(endpoints: Sequence[Endpoint], version: str) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.full_path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "photometryd", "version": version, "description": "See docs/api.md."},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(endpoints),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    body: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1]],
        "responses": _responses(endpoint),
    }
    parameters = _parameters(endpoint.path_model, "path") + _parameters(endpoint.query, "query")
    if endpoint.answers_operation:
        parameters.append(_idempotency_key())
    if parameters:
        body["parameters"] = parameters
    if endpoint.body is not None:
        body["requestBody"] = {"required": not endpoint.body_optional, "content": {JSON: _schema_of(endpoint.body)}}
    if endpoint.scope:
        body["security"] = [{"bearer": []}, {}]
        body["description"] = f"Needs the scope `{endpoint.scope}`."
    return body


def _operation_id(endpoint: Endpoint) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", f"{endpoint.method} {endpoint.path}".lower())
    return words.strip("_")


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if not endpoint.always_operation:
        responses["200"] = {"description": "Done.", "content": _content(endpoint)}
    if endpoint.answers_operation:
        responses["202"] = {
            "description": "Takes longer than a second: watch the operation at Location.",
            "headers": {"Location": {"schema": {"type": "string"}, "description": "URL of the operation."}},
            "content": {JSON: _schema_of(OperationReply)},
        }
    for status in sorted({*_refusals(endpoint), *endpoint.statuses}):
        sentence = endpoint.statuses.get(status) or REFUSALS[status]
        responses[str(status)] = {"description": sentence, "content": _refusal_content(endpoint, status)}
    responses["default"] = _problem("Any other problem document.")
    return responses


def _refusals(endpoint: Endpoint) -> set[int]:
    """What every endpoint of its kind may answer."""
    found = {400, 403, 429, 431}
    if endpoint.scope:
        found |= {401, 503}
    if endpoint.path_model is not None:
        found |= {404, 409}
    if endpoint.body is not None:
        found |= {408, 413, 415}
    if endpoint.scope != "read" and endpoint.method != "GET":
        found |= {409, 422}
    if len(endpoint.media_types) > 1:
        found |= {406}
    if endpoint.answers_operation:
        found |= {422, 507}
    return found


def _refusal_content(endpoint: Endpoint, status: int) -> dict[str, Any]:
    problem: dict[str, Any] = {problems.MEDIA_TYPE: _schema_of(Problem)}
    own = endpoint.refusal_models.get(status)
    return problem if own is None else problem | {JSON: _schema_of(own)}


def _problem(sentence: str) -> dict[str, Any]:
    return {"description": sentence, "content": {problems.MEDIA_TYPE: _schema_of(Problem)}}


def _content(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {media: {} for media in endpoint.media_types}
    if endpoint.answer is not None and JSON in content:
        content[JSON] = _schema_of(endpoint.answer)
    return content


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": REF.format(model=model.__name__)}}


def _parameters(model: type[Query] | None, place: str) -> list[dict[str, Any]]:
    """Parameters of a flat model: lists are comma-separated, everything in a query may be left out."""
    if model is None:
        return []
    found = []
    for name, given in model.model_json_schema(ref_template=REF).get("properties", {}).items():
        own = _without_null(given)
        entry: dict[str, Any] = {"name": name, "in": place, "required": place == "path"}
        if description := own.pop("description", None):
            entry["description"] = description
        own.pop("title", None)
        if own.get("type") == "array":
            entry |= {"style": "form", "explode": False}
        found.append(entry | {"schema": own})
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out rather than given as null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if not options:
        return dict(schema)
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return rest | (options[0] if len(options) == 1 else {"anyOf": options})


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Repeating a request with the same key answers with the operation it started the first time.",
        "schema": {"type": "string", "maxLength": 200},
    }


def _schemas(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    answers: set[type[BaseModel]] = {endpoint.answer for endpoint in endpoints if endpoint.answer}
    answers |= {Problem, OperationReply}
    answers |= {model for endpoint in endpoints for model in endpoint.refusal_models.values()}
    bodies: set[type[BaseModel]] = {endpoint.body for endpoint in endpoints if endpoint.body}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "serialization") for model in answers]
    wanted += [(model, "validation") for model in bodies]
    wanted.sort(key=lambda item: item[0].__name__)
    _, schema = models_json_schema(wanted, ref_template=REF)
    schemas: dict[str, Any] = schema["$defs"]
    for endpoint in endpoints:
        for model in (endpoint.query, endpoint.path_model):
            if model is not None:
                schemas |= model.model_json_schema(ref_template=REF).get("$defs", {})
    return schemas
