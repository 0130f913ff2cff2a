"""The files between the engine and its neighbours: the configuration it takes, the status it gives."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from aisandbox.instance import clock, files
from aisandbox.instance.observe.report import now

POLL_SECONDS = 0.05

Phase = Literal["import", "wait", "load", "serve"]
State = Literal["running", "done", "failed"]
Mode = Literal["fast", "plain"]


class ConfigError(Exception):
    """`engine.json` is there but unusable; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """One model that the engine can be told to serve."""

    model: str
    """Folder, or a name that vLLM knows."""
    served_names: tuple[str, ...]
    args: tuple[str, ...]
    name: str = ""
    """What people call it, as ORGANISATION/NAME."""
    why: str = ""
    """Why it is a fallback; empty for the model that was asked for."""
    processor: bool = False
    """Whether it is served from the processor, by Transformers, since no GPU can be used."""

    @property
    def label(self) -> str:
        return self.name or (self.served_names[0] if self.served_names else self.model)

    @property
    def id(self) -> str:
        """What identifies it in the status and in the memory of failures."""
        facts = (self.model, self.served_names, self.args, *(["processor"] if self.processor else []))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class EngineConfig:
    """What the engine is to serve, as the model step wrote it."""

    asked: Candidate
    fallbacks: tuple[Candidate, ...] = ()
    """What to serve instead, best first. Each answers to its own names, then to those of the model asked for."""
    devices: tuple[str, ...] = ()
    """UUIDs of the GPUs to use; empty for all."""

    @property
    def digest(self) -> str:
        """Identifies what was asked for. Other fallbacks alone are no reason to restart a model that serves."""
        if not self.devices:
            return self.asked.id
        return hashlib.sha256(json.dumps((self.asked.id, self.devices)).encode()).hexdigest()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.asked, *self.fallbacks)


def parse_config(content: bytes) -> EngineConfig:
    """Validate the content of `engine.json`. A fallback that makes no sense is left out."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("not an object")
    asked = _candidate(data)
    return EngineConfig(asked, tuple(_fallbacks(data.get("fallbacks"), asked)), _strings(data, "devices"))


def _candidate(data: Mapping[str, Any]) -> Candidate:
    model = data.get("model")
    if not isinstance(model, str) or not model:
        raise ConfigError("`model` must be a path or a name")
    name, why = (value if isinstance(value, str) else "" for value in (data.get("name"), data.get("why")))
    names, args = _strings(data, "served_names"), _strings(data, "args")
    return Candidate(model, names, args, name, why, data.get("processor") is True)


def _fallbacks(entries: object, asked: Candidate) -> Iterator[Candidate]:
    for entry in entries if isinstance(entries, list) else ():
        try:
            candidate = _candidate(entry if isinstance(entry, dict) else {})
        except ConfigError as error:
            print(f"engine: fallback left out: {error}", flush=True)
            continue
        # Its own name comes first, so that answers name it; the others stay for clients that were set to them.
        names = tuple(dict.fromkeys((*candidate.served_names, *asked.served_names)))
        yield replace(candidate, served_names=names)


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


@dataclass
class Status:
    """`status/engine.json`: where the engine is, for the progress page and for people."""

    path: Path
    mode: Mode = "fast"
    config: str = ""
    _timeline: dict[str, float] = field(default_factory=dict)
    _published: tuple[str, str] = ("", "")
    _since: str = ""

    def carry_on(self) -> None:
        """Keep the times of the program that this process ran before."""
        earlier = (files.read_json(self.path) or {}).get("timeline")
        self._timeline = dict(earlier) if isinstance(earlier, dict) else {}

    def publish(self, phase: Phase, state: State, message: str, fix: str = "", **facts: Any) -> None:
        """Write the status, and a line for the journal. `facts` stand beside the rest."""
        if (phase, state) != self._published:
            self._published, self._since = (phase, state), now()
        self._timeline.setdefault(phase, round(clock.process_age(), 2))
        print(f"engine: {phase} {state}: {message}", flush=True)
        entry = {"phase": phase, "state": state, "message": message, "fix": fix}
        began = clock.process_start()
        times = {"began": began, "since": self._since, "updated": now(), "timeline": self._timeline}
        taken = {"config": self.config} if self.config else {}
        write_json(self.path, {**facts, "service": "engine", "mode": self.mode, **entry, **times, **taken})
