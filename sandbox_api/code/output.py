"""Outputs of code in the form of notebooks, bounded while they arrive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sandbox_api.code.models import Execution, Output
from sandbox_api.head_tail import HeadTailBuffer, clipped
from sandbox_api.settings import Settings
from sandbox_api.unicode import ANSI, MOST_DEPTH, dumps, is_deeper

MOST_OUTPUTS = 500
MOST_LINES = 200
TEXT = "text/plain"


def plain_lines(traceback: list[str]) -> list[str]:
    """A traceback's lines without colours; of a very long one the first and the last."""
    lines = ANSI.sub("", "\n".join(traceback)).splitlines()
    half = MOST_LINES // 2
    if len(lines) > MOST_LINES:
        lines = [*lines[:half], f"[... {len(lines) - 2 * half} lines left out ...]", *lines[-half:]]
    return [clipped(line, 2000) for line in lines]


def as_text(value: object) -> str:
    """A value as text. Code that runs decides what comes here, and need not keep to the protocol."""
    if isinstance(value, str):
        return value
    try:
        return dumps(value).decode()
    except (ValueError, RecursionError):  # nested too deep
        return ""


def as_mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_count(value: object) -> int | None:
    return value if isinstance(value, int) else None


class Collector:
    """Collects the outputs of one run."""

    def __init__(self, settings: Settings) -> None:
        self._limit = settings.answer_output_chars
        self._rich_left = settings.rich_output_bytes
        self._stream_left = 4 * self._limit
        self._streams = {"stdout": HeadTailBuffer(self._limit), "stderr": HeadTailBuffer(self._limit)}
        self._entries: list[tuple[Output, HeadTailBuffer | None, object]] = []
        self._clear_next = False
        self.result: str | None = None
        self.error: Output | None = None
        self.left_out: dict[str, int] = {}

    def _miss(self, what: str, amount: int) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + amount

    def _append(self, output: Output, clip: HeadTailBuffer | None = None, display: object = None) -> None:
        if self._clear_next:
            self.clear(wait=False)
        if len(self._entries) < MOST_OUTPUTS:
            self._entries.append((output, clip, display))
        else:
            self._miss("outputs", 1)

    def clear(self, wait: bool) -> None:
        """Forget the outputs so far, or those so far when the next one comes."""
        self._clear_next = wait
        if not wait:
            self._entries.clear()

    def stream(self, name: str, text: str) -> None:
        self._streams[name].add(text)
        last = self._entries[-1] if self._entries and not self._clear_next else None
        if last and last[1] is not None and last[0].name == name:
            last[1].add(text)
            return
        clip = HeadTailBuffer(max(2, min(self._limit, self._stream_left)))
        clip.add(text)
        self._stream_left -= min(len(text), self._limit)
        self._append(Output(output_type="stream", name=name), clip)

    def _bounded(self, data: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        # Text first, so that something remains of what is too large.
        for mime in sorted(data, key=lambda name: name != TEXT):
            value = data[mime]
            if is_deeper(value, MOST_DEPTH):
                self._miss(mime, 1)
                continue
            if mime == TEXT:
                value = as_text(value)
                if len(value) > self._limit:
                    self._miss(mime, len(value) - self._limit)
                    value = clipped(value, self._limit)
            else:
                size = len(as_text(value))
                if size > self._rich_left:
                    self._miss(mime, size)
                    continue
                self._rich_left -= size
            kept[mime] = value
        return kept

    def rich(
        self,
        data: object,
        metadata: object = None,
        *,
        count: object = None,
        is_result: bool = False,
        display: object = None,
        update: bool = False,
    ) -> None:
        kept, about = self._bounded(as_mapping(data)), self._bounded(as_mapping(metadata))
        if update:
            for output, _, shown in self._entries:
                if shown == display:
                    output.data, output.metadata = kept, about
            return
        if is_result:
            self.result = kept.get(TEXT)
        kind: Any = "execute_result" if is_result else "display_data"
        self._append(
            Output(output_type=kind, data=kept, metadata=about, execution_count=as_count(count)), display=display
        )

    def fail(self, error: Mapping[str, Any]) -> None:
        """Take in an exception: `ename`, `evalue` and `traceback`, a list of lines."""
        traceback = error.get("traceback")
        lines = [as_text(line) for line in traceback] if isinstance(traceback, list) else []
        self.error = Output(
            output_type="error",
            ename=clipped(as_text(error.get("ename", "")), 1000),
            evalue=clipped(as_text(error.get("evalue", "")), 10_000),
            traceback=[clipped(line, 10_000) for line in lines[:MOST_LINES]],
        )
        self._plain = plain_lines(lines)
        self._append(self.error)

    def completed(self, answer: Execution, start: float) -> Execution:
        """The answer with the outputs so far.

        Args:
            start: of the run, by the monotonic clock.
        """
        seconds = round(time.monotonic() - start, 4)
        return answer.model_copy(update={**self.fields(), "seconds": seconds})

    def fields(self) -> dict[str, Any]:
        """The fields of `Execution` that come from outputs."""
        outputs = []
        for output, clip, _ in self._entries:
            if clip is not None:
                output.text = str(clip)
            outputs.append(output)
        for name, clip in self._streams.items():
            if clip.left_out:
                self.left_out[name] = clip.left_out
        return {
            "outputs": outputs,
            "stdout": str(self._streams["stdout"]),
            "stderr": str(self._streams["stderr"]),
            "result": self.result,
            "traceback": self._plain if self.error else None,
            "left_out": self.left_out,
        }
