"""The API's document is true, whole, and read without any other machine."""

import re

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from actors.http.problems import KINDS
from tests.http.fake_engine import FakeEngine

# Not asked: `unsupported_method`, since FastAPI's answer to it lists no methods of the path's other routes, and who has no
# token learns nothing of methods; `negative_data_rejection`, since a query that is not known is not looked at.
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
MAY_BE_503 = {"/carry", "/candles", "/instruments", "/health"}
"""Nothing is at the venue's address here, and what is killed is not well: that is the right answer."""

SOME = settings(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def document(api):
    return api.stranger.get("/openapi.json").json()


def operations(document):
    return [(path, method, one) for path, item in document["paths"].items() for method, one in item.items()]


@pytest.mark.parametrize("mode", GenerationMode)
def test_whatever_is_sent_is_answered_as_the_document_says(api, document, mode):
    asked = set()

    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        where = f"{operation.method.upper()} {operation.path}"
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # nothing is taken, so nothing can be wrong
        asked.add(where)

        @settings(SOME)
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case):
            must_be_answered_well(api, case)

        answered()

    if mode is GenerationMode.POSITIVE:
        assert asked == {f"{method.upper()} {path}" for path, method, _ in operations(document)}


def must_be_answered_well(api, case):
    answer = case.call(base_url=api.url, headers={"Authorization": f"Bearer {api.token}"}, timeout=60)
    assert answer.status_code != 500, answer.text
    case.validate_response(answer, checks=CHECKS if case.path in MAY_BE_503 else [not_a_server_error, *CHECKS])


def test_every_route_says_what_it_does_and_how_it_may_be_refused(document):
    for path, method, operation in operations(document):
        where = f"{method.upper()} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where
        told = set(operation["responses"])
        assert "403" in told, where
        if method == "post":
            assert told >= {"400", "401", "409", "413", "422", "429", "503", "504"}, where
            assert operation["security"] == [{"token": []}], where
            assert [one["name"] for one in operation["parameters"] if one["in"] == "header"] == ["Idempotency-Key"], (
                where
            )
        else:
            assert "security" not in operation, where


def test_every_refusal_is_a_problem(document):
    for path, method, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and (path, status) != ("/health", "503"):
                assert list(answer["content"]) == ["application/problem+json"], f"{method} {path} {status}"


def test_every_field_that_is_sent_is_described(document):
    for name in ("Stop", "Reasoned", "Arm", "Configure", "ProcessWish", "BacktestWish", "EvaluateWish", "Decision"):
        fields = document["components"]["schemas"][name]["properties"]
        assert not [field for field, said in fields.items() if not said.get("description")], name


def test_every_kind_of_error_has_a_meaning_for_programs():
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_page_of_the_document_asks_no_other_machine(api, page):
    text = api.stranger.get(page).text
    asked = re.findall(r"""(?:src|href)=["']([^"']+)["']""", text)

    assert asked
    assert not [one for one in asked if "//" in one]
    for path in asked:
        assert httpx.get(f"{api.url}{path}").status_code == 200


def test_a_document_is_written_once_and_is_the_same_for_all(api):
    first, second = (api.stranger.get("/openapi.json").content for _ in range(2))

    assert first == second
    assert isinstance(api.engine, FakeEngine)
