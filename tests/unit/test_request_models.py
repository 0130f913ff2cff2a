"""One model of the list, by its name."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from aisandbox.instance.serve.request_models import OneModel

MODELS = [{"id": "acme/one", "object": "model", "max_model_len": 4096}, {"id": "alias", "object": "model"}]


@pytest.fixture
def client() -> TestClient:
    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": MODELS})

    async def other(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    routes = [Route("/v1/models", models), Route("/{path:path}", other, methods=["GET", "POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(OneModel)]))


@pytest.mark.parametrize("path", ["acme/one", "acme%2Fone", "alias"])
def test_a_model_that_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/models/{path}")
    assert answer.status_code == 200
    assert answer.json() == MODELS[0 if "one" in path else 1]


@pytest.mark.parametrize("path", ["acme", "acme/one/", "other/name", "%22", "", "acme/ONE"])
def test_one_that_is_not(client: TestClient, path: str) -> None:
    answer = client.get(f"/v1/models/{path}")
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (404, "invalid_request_error", "model_not_found")
    assert error["message"].endswith("does not exist; served is `acme/one` and `alias`.")


def test_everything_else_passes(client: TestClient) -> None:
    assert json.loads(client.get("/v1/models").text)["data"] == MODELS
    assert client.get("/v1/models-other").text == "GET"
    assert client.post("/v1/models/acme/one").text == "POST"
