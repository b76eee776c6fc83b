"""The whole daemon asked whatever its own OpenAPI document allows, and what it does not allow."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import (
    JsonSchemaError,
    UndefinedContentType,
    UndefinedStatusCode,
)
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ENDLESS = {"/api/v1/events": {"follow": "false"}, "/api/v1/logs": {"follow": "false"}}
EXPECTED_5XX = (503, 507)  # with Retry-After and a remedy: no fault of the software
ANSWER_DEADLINE_S = 60.0
__all__ = ["Contract", "JsonSchemaError", "UndefinedContentType", "UndefinedStatusCode"]


@dataclass
class Contract:
    """What was asked and what was wrong with the answers."""

    url: str
    seed: int
    examples: int
    """Of good requests an operation, and as many of bad ones."""
    known: dict[str, str] = field(default_factory=dict)
    """Path parameters for which there is something: a random one would lead to 404 only."""
    token: str = ""
    asked: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)
    """By operation and kind: the first of each, with its request."""

    def run(self) -> Contract:
        """Every operation, good and bad requests, derived from the seed."""
        document = requests.get(f"{self.url}/api/v1/openapi.json", timeout=10).json()
        for item in document["paths"].values():  # "default" would cover any status
            for operation in item.values():
                operation["responses"].pop("default", None)
                for parameter in operation.get("parameters", ()):
                    if parameter["in"] == "path" and parameter["name"] in self.known:
                        parameter["schema"] = {"type": "string", "enum": [self.known[parameter["name"]], "none"]}
        schema = schemathesis.openapi.from_dict(document)
        for result in schema.get_all_operations():
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                self._operation(result.ok(), mode)
        return self

    def _operation(self, operation: Any, mode: Any) -> None:
        @seeded(self.seed)
        @settings(
            max_examples=self.examples,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            self._ask(case)

        try:
            ask()
        except Exception as error:
            if type(error).__name__ not in ("Unsatisfiable", "SkipTest", "Skipped"):
                self.wrong.setdefault(f"{operation.label} {type(error).__name__}", str(error)[:600])

    def _ask(self, case: Any) -> None:
        if case.operation.path in ENDLESS:
            case.query = {**(case.query or {}), **ENDLESS[case.operation.path]}
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        label = case.operation.label
        try:
            answer = case.call(base_url=self.url, headers=headers, timeout=ANSWER_DEADLINE_S)
        except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError):
            return  # cannot be sent by this client at all
        self.asked += 1
        self.statuses[str(answer.status_code)] += 1
        problem = self._problem(answer)
        checks = [check for check in CHECKS if check is not not_a_server_error or not problem]
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                self._note(label, failure, case, answer)
        except AssertionError as failure:
            self._note(label, failure, case, answer)

    def _problem(self, answer: Any) -> bool:
        """Whether it is one of the refusals that say when to come again."""
        return answer.status_code in EXPECTED_5XX and b'"remedy"' in answer.content

    def _note(self, label: str, failure: Exception, case: Any, answer: Any) -> None:
        sent = f"{case.method} {case.formatted_path} query={case.query} body={str(case.body)[:300]}"
        told = f"{answer.status_code} {answer.content[:400]!r}"
        key = f"{label} {type(failure).__name__} {answer.status_code}"
        self.wrong.setdefault(key, f"{str(failure)[:400]}\n  sent {sent}\n  got {told}")


if __name__ == "__main__":
    found = Contract(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])).run()
    print(json.dumps({"asked": found.asked, "statuses": found.statuses}, indent=1))
    for name, what in found.wrong.items():
        print(f"{name}: {what}\n")
