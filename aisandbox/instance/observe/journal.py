"""The lines of the journal that everybody may see: an allow-list, because the progress page is open to everyone.

Of our own services, only what they say through `report.Reporter` passes: it bears the priority of a notice, and the
same text is in the published state anyway. Of vLLM, only the parts of lines that match a pattern below pass. So a
prompt, a path, a traceback or a library's message never gets out, whatever it says.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from aisandbox.instance import files, scrub
from aisandbox.instance.observe import xid
from aisandbox.instance.observe.xid import Error, Errors
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from aisandbox.instance.run import services
from aisandbox.manifest import Part

LINES = 12
"""How many of the last lines are shown."""
LONGEST = 200
NOTICE = "5"
RETRY_S = 5.0
XID = "xid"
"""Name of the status file with the errors of GPUs."""

_NUMBER = r"[\d.,]+"
ENGINE_LINES = re.compile(
    "|".join(
        (
            r"(?<=^engine: )(?:import|wait|load|serve) (?:running|done): .+",
            rf"Loading \S+ checkpoint shards: +{_NUMBER}% Completed \| \d+/\d+",
            rf"Loading weights took {_NUMBER} seconds",
            rf"Model loading took {_NUMBER} GiB(?: memory)? and {_NUMBER} seconds",
            rf"Available KV cache memory: {_NUMBER} GiB",
            rf"GPU KV cache size: {_NUMBER} tokens",
            rf"Maximum concurrency for {_NUMBER} tokens per request: {_NUMBER}x",
            rf"torch\.compile takes {_NUMBER} s in total",
            rf"Capturing CUDA graphs[^:]{{0,40}}: +{_NUMBER}%",
            rf"Graph capturing finished in {_NUMBER} secs",
            r"Application startup complete",
        )
    )
)


class Line(Part):
    """One line of the log, as it is published."""

    at: str
    service: str
    text: str


def published(entry: dict[str, Any]) -> Line | None:
    """What of an entry of the journal (as `journalctl --output=json` gives it) may be seen by everyone."""
    message, unit = _text(entry.get("MESSAGE")), str(entry.get("_SYSTEMD_UNIT"))
    if unit == services.VLLM:
        found = ENGINE_LINES.search(message)
        shown = found[0] if found else ""
    else:
        shown = message if unit in (services.CONFIGURE, services.MODEL) and entry.get("PRIORITY") == NOTICE else ""
    if not shown:
        return None
    at = datetime.fromtimestamp(int(entry["__REALTIME_TIMESTAMP"]) / 1e6, UTC).isoformat(timespec="seconds")
    service = unit.removesuffix(".service").removeprefix("aisandbox-")
    return Line(at=at, service=service, text=scrub.text(shown)[:LONGEST])


def _text(message: object) -> str:
    """A message; with control characters in it, such as those of a progress bar, it comes as a list of bytes."""
    if isinstance(message, list):
        message = bytes(message).decode(errors="replace")
    return str(message or "").rpartition("\r")[2].strip()


def entries(*command: str) -> Iterator[dict[str, Any]]:
    """What journalctl prints as JSON, until it ends."""
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return
    with process:
        assert process.stdout
        for text in process.stdout:
            try:
                entry = json.loads(text)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


class Tail:
    """Follows the journal of this boot, or the container's logs, beside the program that asks for its last lines."""

    def __init__(self, container: bool = False) -> None:
        self._container = container
        self._lines: deque[Line] = deque(maxlen=LINES)
        threading.Thread(target=self._follow_for_ever, daemon=True).start()

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(self._lines.copy())

    def _follow_for_ever(self) -> None:
        while True:
            self._lines.clear()  # the journal's last lines come again with every start
            self._follow()
            time.sleep(RETRY_S)

    def _follow(self) -> None:
        if self._container:
            self._follow_files()
            return
        units = (f"--unit={unit}" for unit in (services.CONFIGURE, services.MODEL, services.VLLM))
        fields = "--output-fields=MESSAGE,PRIORITY,_SYSTEMD_UNIT"
        for entry in entries("journalctl", "--boot", "--follow", "--lines=500", "--output=json", fields, *units):
            with suppress(ValueError, KeyError):
                if line := published(entry):
                    self._lines.append(line)

    def _follow_files(self) -> None:
        from aisandbox.instance.run.container import logs
        from aisandbox.instance.run.container.catalogue import Catalogue

        units = {unit.removesuffix(".service"): unit for unit in (services.MODEL, services.VLLM)}
        for said in logs.follow(Catalogue.here(), tuple(units)):
            now = str(int(time.time() * 1e6))
            entry = {"MESSAGE": said.text, "_SYSTEMD_UNIT": units[said.program], "__REALTIME_TIMESTAMP": now}
            line = published(entry | ({"PRIORITY": NOTICE} if said.notice else {}))
            if line:
                self._lines.append(line)


class KernelErrors:
    """Follows the kernel's log of this boot for what NVIDIA's driver reports of the GPUs."""

    def __init__(self, places: Places) -> None:
        self._file = places.status(XID)
        self._errors = Errors()
        self._kept: list[Error] | None = None
        threading.Thread(target=self._follow_for_ever, daemon=True).start()

    def keep(self) -> None:
        """Write down what is new, for everybody who asks for the state."""
        if (found := self._errors.all) != self._kept:
            files.write_json(self._file, {"errors": [error.model_dump() for error in found]})
            self._kept = found

    def _follow_for_ever(self) -> None:
        while True:
            errors = Errors()
            for entry in entries(*xid.COMMAND, "--follow", "--lines=all"):
                errors.add(entry)
                self._errors = errors
            time.sleep(RETRY_S)


def kernel_errors(places: Places) -> Iterator[Problem]:
    """What `KernelErrors` wrote down, as problems."""
    try:
        kept = [Error.model_validate(error) for error in (files.read_json(places.status(XID)) or {}).get("errors", ())]
    except ValidationError:
        kept = []
    return xid.problems(kept)
