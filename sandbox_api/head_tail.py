"""Text without its middle, for answers that have a limit."""

from __future__ import annotations


class HeadTailBuffer:
    """Text of which the first and the last part are kept, in memory bounded by `limit` characters."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = self._tail = ""
        self.total = 0

    def add(self, text: str) -> None:
        self.total += len(text)
        if (room := self._half - len(self._head)) > 0:
            self._head += text[:room]
            text = text[room:]
        if text:
            self._tail = (self._tail + text[-self._half :])[-self._half :]

    @property
    def left_out(self) -> int:
        return self.total - len(self._head) - len(self._tail)

    def __str__(self) -> str:
        gap = f"\n[... {self.left_out} characters left out ...]\n" if self.left_out else ""
        return self._head + gap + self._tail


def clipped(text: str, limit: int) -> str:
    """The text without its middle if it has more than `limit` characters."""
    if len(text) <= limit:
        return text
    buffer = HeadTailBuffer(limit)
    buffer.add(text)
    return str(buffer)
