"""The files between the engine and its neighbours: the configuration it takes, the status it gives."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import files

POLL_SECONDS = 0.05

Phase = Literal["import", "wait", "load", "serve"]
State = Literal["running", "done", "failed"]
Mode = Literal["fast", "plain"]


class ConfigError(Exception):
    """`engine.json` is there but unusable; the message says why."""


@dataclass(frozen=True)
class EngineConfig:
    """What the engine is to serve, as the model step wrote it."""

    model: str
    served_names: tuple[str, ...]
    args: tuple[str, ...]
    digest: str


def parse_config(content: bytes) -> EngineConfig:
    """Validate the content of `engine.json`; its sha256 identifies it from here on."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise ConfigError("`model` must be a path or a name")
    return EngineConfig(
        model=model,
        served_names=_strings(data, "served_names"),
        args=_strings(data, "args"),
        digest=hashlib.sha256(content).hexdigest(),
    )


def _strings(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"`{key}` must be a list of strings")
    return tuple(value)


def read_config(path: Path) -> EngineConfig | None:
    """The configuration, or None while there is none; raises `ConfigError` on an unusable one."""
    try:
        return parse_config(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}") from error


def wait_for_config(path: Path, on_invalid: Callable[[ConfigError], None]) -> EngineConfig:
    """Wait for a valid configuration; `on_invalid` hears about each unusable one once."""
    complaint = ""
    while True:
        try:
            if config := read_config(path):
                return config
            complaint = ""
        except ConfigError as error:
            if str(error) != complaint:
                complaint = str(error)
                on_invalid(error)
        time.sleep(POLL_SECONDS)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write the file if possible. A failure must not stop the engine: serving matters more."""
    try:
        files.write_json(path, data)
    except OSError as error:
        print(f"engine: cannot write {path}: {error}", flush=True)


def process_age() -> float:
    """Seconds since this process started. Exec does not restart it, so it spans a fallback."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass
class Status:
    """`status/engine.json`: where the engine is, for the progress page and for people."""

    path: Path
    mode: Mode = "fast"
    config: str = ""
    _timeline: dict[str, float] = field(default_factory=dict)
    _published: tuple[str, str] = ("", "")
    _since: str = ""

    def publish(self, phase: Phase, state: State, message: str, fix: str = "") -> None:
        """Write the status, and a line for the journal."""
        if (phase, state) != self._published:
            self._published, self._since = (phase, state), now()
        self._timeline.setdefault(phase, round(process_age(), 2))
        print(f"engine: {phase} {state}: {message}", flush=True)
        entry = {"phase": phase, "state": state, "message": message, "fix": fix}
        times = {"since": self._since, "updated": now(), "timeline": self._timeline}
        taken = {"config": self.config} if self.config else {}
        write_json(self.path, {"service": "engine", "mode": self.mode, **entry, **times, **taken})


@dataclass(frozen=True)
class FastFailure:
    """`status/engine-fast-failed.json`: for which configuration the fast start failed, until reboot."""

    path: Path

    def remember(self, digest: str, reason: str) -> None:
        write_json(self.path, {"config": digest, "reason": reason, "at": now()})

    def reason(self, digest: str) -> str:
        """Why the fast start failed for this configuration; empty when it has not."""
        data = files.read_json(self.path) or {}
        return str(data.get("reason") or "unknown") if data.get("config") == digest else ""
