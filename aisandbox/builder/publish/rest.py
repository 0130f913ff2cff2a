"""Requests to platforms whose API is plain JSON over HTTPS with a bearer token."""

from __future__ import annotations

from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish.change import RefusedError

TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two bytes of the answer."""
RETRY = Retry(
    total=4, connect=1, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=("GET", "PUT", "PATCH")
)
"""A repeated PUT or PATCH says the same again; a POST would make a second one."""
TRACES = ("x-request-id", "x-amzn-requestid")


class Api:
    """One platform's API. Use as a context manager."""

    def __init__(self, platform: str, base: str, token: str, variable: str) -> None:
        self.platform, self.base, self._variable = platform, base.rstrip("/"), variable
        if not token.isascii() or not token.isprintable() or " " in token:
            raise BuildError(f"{variable} is no access token", f"export {variable}=… as {platform} shows it")
        self._session = requests.Session()
        self._session.mount("https://", HTTPAdapter(max_retries=RETRY))
        self._session.mount("http://", HTTPAdapter(max_retries=RETRY))
        self._session.headers["Authorization"] = f"Bearer {token}"

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON; an empty one is an empty mapping.

        Raises:
            RefusedError: the platform answered with an error.
            BuildError: there was no answer, or none that can be read.
        """
        try:
            answer = self._session.request(
                method, f"{self.base}{path}", json=body, timeout=TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            # Its text holds addresses, never headers.
            raise BuildError(
                f"{self.platform} cannot be reached at {self.base}: {type(error).__name__}",
                "check network and proxy settings, then repeat",
            ) from error
        try:
            content = answer.json() if answer.content else {}
        except requests.JSONDecodeError:
            content = {}
        if answer.ok and answer.status_code < 300 and isinstance(content, dict):
            return content
        trace = next((answer.headers[name] for name in TRACES if name in answer.headers), None)
        reason = _reason(content) or answer.reason or "no reason given"
        raise RefusedError(self.platform, f"{answer.status_code} {reason}", self._fix(answer.status_code), trace)

    def _fix(self, status: int) -> str:
        match status:
            case 401 | 403:
                return f"make a token that may do this, and export it as {self._variable}"
            case 404:
                return "check the id: it must belong to this account"
            case 429:
                return "wait some minutes, then repeat"
        return "mend what it says, then repeat: nothing was changed"


def _reason(content: object) -> str:
    """The words for people in an error's body: DigitalOcean says `message`, Linode a list of `errors`."""
    if not isinstance(content, dict):
        return ""
    if isinstance(content.get("errors"), list):
        parts = (
            ": ".join(str(part[key]) for key in ("field", "reason") if part.get(key))
            for part in content["errors"]
            if isinstance(part, dict)
        )
        return "; ".join(parts)
    return str(content.get("message") or content.get("error") or "")
