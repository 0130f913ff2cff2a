"""The API's key: who has it gets in, and nobody else; before there is a choice, nobody does."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from pydantic import SecretStr

from aisandbox.instance.choose.options import Choice
from tests.gateway.stack import Gateway, running_gateway
from tests.gateway.test_api_port import ALLOWED, call, what
from tests.gateway.upstream import MODEL, Upstream

KEY = "a.b~c_d-E" + "f" * 119
"""As long as a key may be, with everything that means something in a regular expression."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("key"), Choice(api_key=SecretStr(KEY))) as running:
        yield running


@pytest.fixture(scope="module")
def vllm(gateway: Gateway) -> Iterator[Upstream]:
    with Upstream(gateway.port("api_upstream")) as upstream:
        yield upstream


@pytest.mark.parametrize(("method", "path"), ALLOWED)
def test_the_key_opens_every_route(gateway: Gateway, vllm: Upstream, method: str, path: str) -> None:
    both = {"Authorization": f"Bearer {KEY}", "x-api-key": KEY}
    for headers in (both, *({name: value} for name, value in both.items())):
        assert call(gateway, method, path, json={} if method == "POST" else None, headers=headers).status_code == 200
        assert KEY not in str(vllm.seen[-1].headers)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "Bearer",
        KEY,
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer x{KEY}",
        f"Bearer {KEY} {KEY}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY.replace('.', 'x')}",
    ],
)
@pytest.mark.parametrize(("method", "path"), [entry for entry in ALLOWED if entry[1] != "/ready"])
def test_nothing_else_does(gateway: Gateway, vllm: Upstream, method: str, path: str, given: str | None) -> None:
    before = len(vllm.seen)
    headers = {} if given is None else {"Authorization": given}
    response = call(gateway, method, path, json={} if method == "POST" else None, headers=headers)
    assert response.status_code == 401
    assert what(response) == ("authentication_error" if path.startswith("/v1/messages") else "invalid_api_key")
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert len(vllm.seen) == before


@pytest.mark.parametrize(
    "headers",
    [
        [("x-api-key", "")],
        [("x-api-key", f"{KEY}x")],
        [("x-api-key", f"Bearer {KEY}")],
        [("x-api-key", KEY.upper())],
        [("x-api-key", KEY), ("Authorization", "Bearer other")],
        [("x-api-key", "other"), ("Authorization", f"Bearer {KEY}")],
        [("Authorization", f"Bearer {KEY}|{KEY}")],
        [("Authorization", f"|{KEY}")],
    ],
)
def test_nor_does_a_wrong_second_key(gateway: Gateway, vllm: Upstream, headers: list[tuple[str, str]]) -> None:
    assert call(gateway, "GET", "/v1/models", headers=headers).status_code == 401


def test_nor_a_key_in_the_address(gateway: Gateway, vllm: Upstream) -> None:
    assert call(gateway, "GET", f"/v1/models?api_key={KEY}&key={KEY}").status_code == 401
    assert KEY not in gateway.log()


def test_probes_need_no_key(gateway: Gateway, vllm: Upstream) -> None:
    assert [call(gateway, "GET", path).status_code for path in ("/health", "/ready")] == [200, 200]


def test_what_is_closed_to_all_is_so_with_the_key(gateway: Gateway, vllm: Upstream) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    assert call(gateway, "GET", "/metrics", headers=headers).status_code == 404
    assert call(gateway, "OPTIONS", "/v1/chat/completions", headers=headers).status_code == 405
    assert call(gateway, "OPTIONS", "/v1/chat/completions").status_code == 405


def test_the_official_client(gateway: Gateway, vllm: Upstream) -> None:
    base = gateway.url("api", "/v1")
    assert openai.OpenAI(base_url=base, api_key=KEY).models.list().data[0].id == MODEL
    with pytest.raises(openai.AuthenticationError, match="aisandbox keys") as refused:
        openai.OpenAI(base_url=base, api_key="wrong").models.list()
    assert refused.value.code == "invalid_api_key"


def test_large_requests_without_it_are_not_read(gateway: Gateway, vllm: Upstream) -> None:
    try:
        response = call(gateway, "POST", "/v1/completions", content=b"x" * (8 << 20))
    except httpx.TransportError:  # it may close the connection in the middle
        return
    assert response.status_code == 401


def test_the_key_is_in_no_log(gateway: Gateway, vllm: Upstream) -> None:
    call(gateway, "GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert "GET /v1/models" in gateway.log()
    assert KEY not in gateway.log()


def test_as_it_comes_with_the_image_it_is_closed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with (
        running_gateway(tmp_path_factory.mktemp("new"), None) as gateway,
        Upstream(gateway.port("api_upstream")) as vllm,
    ):
        for method, path in ALLOWED:
            if path != "/ready":
                response = call(gateway, method, path, json={} if method == "POST" else None)
                assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
                assert what(response) == ("overloaded_error" if "messages" in path else "model_loading")
        assert vllm.seen == []
        assert call(gateway, "GET", "/health").status_code == 200
        # The choice opens it, without a restart.
        gateway.choose(Choice())
        assert call(gateway, "GET", "/v1/models").status_code == 200
