"""The metadata service of the cloud that this instance runs on.

Only that cloud's own service is asked, briefly, without a proxy and without following redirects. Answers are kept, so
that a boot without network makes the same choice, and are trusted no more than any other input.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from aisandbox.instance import files
from aisandbox.instance.choose.options.source import Source
from aisandbox.instance.places import Places

STEP_S = 1.0
TOTAL_S = 1.8
"""Longest wait for one step of an exchange, and for all of them."""
MAX_BYTES = 1024 * 1024
MAX_KEPT_BYTES = 8 * MAX_BYTES


class MetadataError(Exception):
    """The service did not answer, or not as it should."""


class Service(Protocol):
    """What can be asked: the service itself, or what it answered before."""

    def ask(
        self, path: str, headers: Mapping[str, str], method: str = "GET", absent: tuple[int, ...] = (404,)
    ) -> bytes | None:
        """The answer's body; None when its status is one of `absent`.

        Raises:
            MetadataError: no answer, or one of another status than 200, or too large.
        """


class Reader(Protocol):
    """Reads one cloud's service."""

    def __call__(self, service: Service) -> list[Source]: ...


class Live:
    """The service itself. Remembers its answers."""

    def __init__(self, address: str) -> None:
        import http.client  # not every cloud has a service to ask

        parts = urlsplit(address)
        assert parts.hostname
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=STEP_S)
        self.answers: dict[str, str | None] = {}

    def ask(
        self, path: str, headers: Mapping[str, str], method: str = "GET", absent: tuple[int, ...] = (404,)
    ) -> bytes | None:
        import http.client

        try:
            self._connection.request(method, path, headers={"Accept": "*/*", **headers})
            response = self._connection.getresponse()
            body = response.read(MAX_BYTES + 1)
            if response.length and len(body) <= MAX_BYTES:
                raise http.client.IncompleteRead(body, response.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise MetadataError(f"did not answer ({type(error).__name__})") from error
        if len(body) > MAX_BYTES:
            self._connection.close()
            raise MetadataError("sent more than any option needs")
        if response.status not in (200, *absent):
            raise MetadataError(f"answered {response.status} to {method} {path}")
        answer = body if response.status == 200 else None
        # A token is worth nothing tomorrow; what counts is that there was one.
        kept = b"token" if answer and method == "PUT" else answer
        self.answers[f"{method} {path}"] = None if kept is None else base64.b64encode(kept).decode()
        return answer


@dataclass(frozen=True)
class Kept:
    """Answers of an earlier boot."""

    answers: Mapping[str, Any]

    def ask(
        self, path: str, headers: Mapping[str, str], method: str = "GET", absent: tuple[int, ...] = (404,)
    ) -> bytes | None:
        answer = self.answers.get(f"{method} {path}")
        try:
            return base64.b64decode(answer) if isinstance(answer, str) else None
        except ValueError as error:
            raise MetadataError("was not kept whole") from error


def read(places: Places, platform: str, reader: Reader) -> list[Source]:
    """What the service says, or what it said before when it cannot be asked now.

    Raises:
        MetadataError: it cannot be asked, and never could.
    """
    assert places.metadata
    live = Live(places.metadata)
    identity = {"platform": platform, "instance": _instance(places)}
    try:
        found = _within(TOTAL_S, lambda: reader(live))
    except MetadataError:
        kept = files.read_json(places.kept_metadata) or {}
        answers = kept.get("answers")
        if {key: kept.get(key) for key in identity} != identity or not isinstance(answers, dict):
            raise
        return reader(Kept(answers))
    if sum(len(answer or "") for answer in live.answers.values()) < MAX_KEPT_BYTES:
        files.write_json(places.kept_metadata, {**identity, "answers": live.answers}, 0o600)
    return found


def _within(seconds: float, work: Any) -> list[Source]:
    """The work's result. A service that sends a byte now and then would outlast every time-out of a socket."""
    results: list[list[Source]] = []
    faults: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # handed over below
            faults.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if faults:
        raise faults[0]
    if not results:
        raise MetadataError(f"did not answer within {seconds:.0f} seconds")
    return results[0]


def _instance(places: Places) -> str:
    try:
        return places.instance_id.read_text(errors="replace").strip()
    except OSError:
        return ""
