"""Whether the instance serves: what it did before an exchange, it must do after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aisandbox.instance import doors, files
from aisandbox.instance.http_probe import ask
from aisandbox.instance.keep.upgrade.services import Services, Unfit

REQUEST_TIMEOUT_S = 20
QUICK_TIMEOUT_S = 3
POLL_S = 1.0
STEADY_S = 3.0
"""How long everything must be well without a break."""
LONGEST_ANSWER = 1 << 20


@dataclass(frozen=True)
class Health:
    """What answers."""

    chat: bool
    """The chat page, through the gateway."""
    api: bool
    """The API's port says that it is ready."""
    completion: bool
    """The engine completes a text."""
    models: tuple[str, ...]
    sandbox: bool
    failed: tuple[str, ...]
    """Units of the machine that have failed."""
    complaint: str
    """What the engine says it could not serve as it was asked to."""

    def missing(self, before: Health) -> str:
        """What answered before and does not now; empty when all does."""
        lost = [
            name
            for name, was, still in (
                ("the engine", before.completion, self.completion),
                ("the API", before.api, self.api),
                ("the chat page", before.chat, self.chat),
                ("the sandbox", before.sandbox, self.sandbox),
            )
            if was and not still
        ]
        if lost:
            return f"{' and '.join(lost)} did not answer"
        if not before.complaint and self.complaint:
            return self.complaint
        gone = [model for model in before.models if model not in self.models]
        if gone:
            return f"{gone[0]} is not served any more"
        new = [unit for unit in self.failed if unit not in before.failed]
        return f"{new[0]} has failed" if new else ""


def from_json(value: Mapping[str, Any]) -> Health:
    return Health(**{**value, "models": tuple(value["models"]), "failed": tuple(value["failed"])})


class Probe:
    """Looks at the instance through its own doors, on loopback."""

    def __init__(self, services: Services, run: Path) -> None:
        self._services = services
        self._report = run / "status" / "engine.json"

    def look(self, ports: Mapping[str, int], since: str = "") -> Health:
        """How healthy the instance is.

        Args:
            since: time in ISO 8601; what the engine reported before then does not count.
        """
        models = _models(ports["api_upstream"])
        return Health(
            chat=doors.serves("chat", ports, QUICK_TIMEOUT_S),
            api=doors.serves("api", ports, QUICK_TIMEOUT_S),
            completion=bool(models) and _completes(ports["api_upstream"], models[0]),
            models=models,
            sandbox=doors.serves("sandbox", ports, QUICK_TIMEOUT_S),
            failed=self._services.failed(),
            complaint=self._complaint(since),
        )

    def wait(
        self,
        before: Health,
        ports: Mapping[str, int],
        units: Sequence[str],
        seconds: float,
        say: Callable[[str], None],
    ) -> None:
        """Wait until what answered before answers again, steadily.

        Raises:
            Unfit: it does not within so many seconds, or a service of `units` is seen not to start.
        """
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        deadline = time.monotonic() + seconds
        well_since, told = None, ""
        while True:
            now = self.look(ports, since)
            missing = now.missing(before)
            broken = self._services.broken(units)
            if broken:
                raise Unfit(*broken)
            if missing and missing == now.complaint:
                raise Unfit(missing)
            if not missing:
                well_since = well_since or time.monotonic()
                if time.monotonic() - well_since >= STEADY_S:
                    return
            else:
                well_since = None
                if missing != told:
                    told = missing
                    say(f"Waiting: {missing} yet.")
            if time.monotonic() > deadline:
                raise Unfit(f"{missing or 'it was not steady'} within {seconds:.0f} s")
            time.sleep(POLL_S)

    def _complaint(self, since: str) -> str:
        report = files.read_json(self._report) or {}
        if report.get("state") != "failed" or str(report.get("updated", "")) < since:
            return ""
        return str(report.get("message", ""))[:300]


def _models(port: int) -> tuple[str, ...]:
    answer = ask(port, "/v1/models", QUICK_TIMEOUT_S, most=LONGEST_ANSWER)
    try:
        return tuple(str(model["id"]) for model in json.loads(answer.content)["data"]) if answer.ok else ()
    except (ValueError, KeyError, TypeError):
        return ()


def _completes(port: int, model: str) -> bool:
    question = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0})
    return ask(port, "/v1/completions", REQUEST_TIMEOUT_S, body=question).ok
