"""The API port: whatever is sent, the answer is the engine's or a refusal in the form of OpenAI's errors."""

from __future__ import annotations

import http.client
import re
import tempfile
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import strategies as st
from pydantic import SecretStr

from aisandbox.instance.choose.options import Choice
from tests.fuzz.search import Property, Search
from tests.gateway.stack import Gateway, running_gateway
from tests.gateway.upstream import Upstream

KEY = "sk-fuzz-0123456789"
OPEN = ("/health", "/ready")
"""Asked for by probes, which have no key."""
EXAMPLES = 20
ANY_JSON: dict[str, Any] = {"type": "object", "additionalProperties": True}
SENT = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/responses/{id}/cancel")
ASKED = ("/ready", "/health", "/version", "/v1/models", "/v1/models/{id}", "/v1/responses/{id}")
WORDS = [
    "v1", "models", "chat", "completions", "responses", "metrics", "tokenize", "health", "ready", "docs", "..", ".", "",
    "%2e%2e", "%2f", "%00", "%0d%0a", ";", "?", "#", "\\", "aisandbox", "progress.html", "status.json", "%ff", "~",
    "a" * 9000,
]  # fmt: skip
HEADERS = {
    "Authorization": st.sampled_from(["", "Bearer", f"bearer {KEY}x", f"Basic {KEY}", f"Bearer {KEY}", KEY])
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
    "Origin": st.sampled_from(["null", "https://elsewhere.example", "http://localhost:1"]),
    "Upgrade": st.sampled_from(["websocket", "h2c"]),
    "Connection": st.sampled_from(["Upgrade, HTTP2-Settings", "close", "keep-alive"]),
    "Content-Type": st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=b"]),
    "Expect": st.sampled_from(["100-continue", "200-ok"]),
    "Range": st.sampled_from(["bytes=0-1", "bytes=9-"]),
    "X-Forwarded-For": st.sampled_from(["127.0.0.1", "::1, 127.0.0.1"]),
    "X-Original-URL": st.sampled_from(["/metrics", "/v1/models"]),
    "X-Long": st.just("x" * 9000),
    "Content-Encoding": st.sampled_from(["gzip", "br"]),
}


def description() -> dict[str, Any]:
    """The documented routes; of bodies only that they are JSON, since the engine reads them."""
    identity = {
        "name": "id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_./-]+$"},
    }
    answers = {"default": {"description": "An answer"}}
    body = {"required": True, "content": {"application/json": {"schema": ANY_JSON}}}
    paths: dict[str, Any] = {}
    for path in (*ASKED, *SENT):
        operation: dict[str, Any] = {"responses": answers, "parameters": [identity] if "{" in path else []}
        paths[path] = {"post": operation | {"requestBody": body}} if path in SENT else {"get": operation}
    return {"openapi": "3.1.0", "info": {"title": "API port", "version": "1"}, "paths": paths}


def is_openais(answer: httpx.Response) -> dict[str, Any]:
    """The error in an answer, which must have the form of OpenAI's."""
    assert answer.headers["content-type"] == "application/json", (answer.status_code, answer.text[:500])
    error: dict[str, Any] = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"] and error["code"]
    return error


class _Port:
    """The API port of a gateway, and the engine behind it."""

    def __init__(self, gateway: Gateway, engine: Upstream, closed: bool) -> None:
        self._base, self._engine, self._closed = gateway.url("api"), engine, closed

    def check(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        try:
            self._check(method, path, headers, body)
        except Exception as find:
            find.add_note(f"{method} {path!r} {headers} {body!r}")
            raise

    def _check(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        before = len(self._engine.seen)
        answer = self._send(method, path, headers, body)
        reached = self._engine.seen[before:]
        opened = headers.get("Authorization") == f"Bearer {KEY}"
        if reached:
            assert answer.status_code == 200
            for seen in reached:
                assert not self._closed or opened or seen.path == "/health", f"the engine was reached: {seen}"
                assert re.match(r"/(health|version|v1/)", seen.path) and ".." not in seen.path.split("/"), seen.path
                assert not seen.header("Authorization"), "the key was handed on"
        elif answer.status_code >= 400:
            assert answer.status_code not in (500, 502, 504), answer.text
            # What nginx cannot parse reaches no site of its, and so no answer of ours.
            unread = answer.status_code in (400, 414) and "<center>nginx</center>" in answer.text
            if method != "HEAD" and not unread:
                is_openais(answer)
        else:
            assert path.split("?")[0].split("#")[0] == "/health" or method == "HEAD", (answer.status_code, path)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["server"] == "nginx"

    def _send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """By the one client that sends the address as it is."""
        url = httpx.URL(self._base)
        connection = http.client.HTTPConnection(url.host, url.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())
        finally:
            connection.close()

    def described(self, method: str, path: str, schema: Any) -> Property:
        """A documented route, with any JSON."""

        def is_answered(case: Any, known: bool) -> None:
            wire = case.as_transport_kwargs(base_url=self._base)
            target = httpx.URL(wire["url"]).raw_path.decode()
            body = httpx.Request(method, self._base, json=wire["json"]).content if "json" in wire else b""
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEY}"} if known else {})
            self.check(method, target, headers, body)

        inputs = {"case": schema[path][method].as_strategy(), "known": st.booleans()}
        return Property(is_answered, inputs, EXAMPLES)

    def anything(self) -> Property:
        """Any method, path and headers."""
        path = st.lists(st.sampled_from(WORDS), max_size=5).map(lambda parts: "/" + "/".join(parts))
        return Property(
            self.check,
            {
                "method": st.sampled_from(
                    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X"]
                ),
                "path": path | st.sampled_from([p.replace("{id}", "x") for p in (*ASKED, *SENT)]),
                "headers": st.fixed_dictionaries({}, optional=HEADERS),
                "body": st.binary(max_size=40),
            },
            5 * EXAMPLES,
        )


def search(name: str, search: Search) -> None:
    """The port as it is open, or with a key."""
    closed = name == "gateway-key"
    choice = Choice(api_key=SecretStr(KEY)) if closed else Choice()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_gateway(Path(folder), choice) as gateway,
        Upstream(gateway.port("api_upstream"), pause=0) as engine,
    ):
        (gateway.www / "ready").touch()
        schema = schemathesis.openapi.from_dict(description())
        port = _Port(gateway, engine, closed)
        described = [
            port.described(method.upper(), path, schema)
            for path, operations in description()["paths"].items()
            for method in operations
        ]
        search.rounds((*described, port.anything()))
