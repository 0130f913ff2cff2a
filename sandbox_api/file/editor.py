"""The text editor that models are trained to use: view, create, str_replace, insert, undo_edit."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sandbox_api.errors import SandboxError
from sandbox_api.file import models, text
from sandbox_api.file.conditions import Precondition, etag
from sandbox_api.file.failures import shown
from sandbox_api.file.files import Files
from sandbox_api.file.folder import opened
from sandbox_api.file.tree import Budget, walk

AROUND = 4
"""Lines shown before and after an edit."""
DEEPEST = 2
MOST_SHOWN = 1000
MOST_FILES = 200
MOST_EDITS = 20
MOST_REMEMBERED = 64 * 2**20


@dataclass(frozen=True)
class Edit:
    """What a file was before (None: not there), and its etag afterwards."""

    content: bytes | None
    etag: str


class History:
    """Latest edits of the latest files, bounded in number and bytes."""

    def __init__(self) -> None:
        self._edits: OrderedDict[Path, deque[Edit]] = OrderedDict()
        self._size = 0

    def add(self, real: Path, edit: Edit) -> None:
        edits = self._edits.setdefault(real, deque())
        edits.append(edit)
        self._edits.move_to_end(real)
        self._size += len(edit.content or b"")
        while len(edits) > MOST_EDITS:
            self._forget(edits.popleft())
        while len(self._edits) > MOST_FILES or self._size > MOST_REMEMBERED:
            oldest = next(iter(self._edits))
            self._forget(self._edits[oldest].popleft())
            if not self._edits[oldest]:
                del self._edits[oldest]

    def last(self, real: Path) -> Edit | None:
        edits = self._edits.get(real)
        return edits[-1] if edits else None

    def drop(self, real: Path) -> None:
        edits = self._edits[real]
        self._forget(edits.pop())
        if not edits:
            del self._edits[real]

    def _forget(self, edit: Edit) -> None:
        self._size -= len(edit.content or b"")

    def renew(self, real: Path, found: os.stat_result) -> None:
        """After an undo, the edit before it led to the present file."""
        if (edits := self._edits.get(real)) and edits:
            edits[-1] = Edit(edits[-1].content, etag(found))


class Editor:
    """Args: most_chars: longest output of a view; the rest is left out, and said to be."""

    def __init__(self, files: Files, most_chars: int, seconds: float) -> None:
        self._files = files
        self._most_chars = most_chars
        self._seconds = seconds
        self._history = History()

    def run(self, request: models.EditorRequest) -> models.EditorResult:
        result: models.EditorResult = getattr(self, f"_{request.command}")(request)
        if request.enable_metadata and Path(request.path).exists():
            found = self._files.stat(models.StatRequest(path=request.path))
            result.metadata = found.model_dump(exclude_none=True)
        return result

    def _view(self, request: models.EditorRequest) -> models.EditorResult:
        real = self._files.paths.resolve(request.path)
        if real.is_dir():
            if request.view_range:
                raise SandboxError("invalid_request", "view_range goes with files, not with folders")
            return models.EditorResult(output=self._folder(real), path=request.path, prev_exist=True)
        start, end = self._range(request.view_range)
        with opened(self._files.paths, real) as stream:
            lines, _ = text.read_lines(stream, start - 1, end, self._files.most_bytes, request.path)
        content = text.decode(lines, request.path)
        output = numbered(content, start) if content or start == 1 else ""
        if not output:
            raise SandboxError("invalid_request", f"{request.path} has fewer than {start} lines")
        return models.EditorResult(output=self._cut(output), path=request.path, prev_exist=True)

    @staticmethod
    def _range(view_range: list[int]) -> tuple[int, int | None]:
        if not view_range:
            return 1, None
        if len(view_range) != 2 or view_range[0] < 1 or (view_range[1] != -1 and view_range[1] < view_range[0]):
            raise SandboxError("invalid_request", "view_range is [first, last] from 1; -1 as last is the end")
        return view_range[0], None if view_range[1] == -1 else view_range[1]

    def _folder(self, real: Path) -> str:
        found = walk(
            str(real),
            Budget(self._seconds),
            lambda entry, parts: len(parts) < DEEPEST and not entry.name.startswith("."),
        )
        visible = ((entry, parts) for entry, parts in found if not entry.name.startswith("."))
        lines = [
            shown(entry.path) + "/" * entry.is_dir(follow_symlinks=False) for entry, _ in islice(visible, MOST_SHOWN)
        ]
        return self._cut("\n".join([f"{shown(real)}/", *sorted(lines)]))

    def _cut(self, output: str) -> str:
        if len(output) <= self._most_chars:
            return output
        kept = output[: self._most_chars].rsplit("\n", 1)[0]
        return f"{kept}\n[{len(output) - len(kept)} characters more: view a range of lines]"

    def _create(self, request: models.EditorRequest) -> models.EditorResult:
        if request.file_text is None:
            raise SandboxError("invalid_request", "create needs file_text")
        real = self._files.paths.resolve(request.path)
        written = self._files.write(
            models.WriteRequest(file=request.path, content=request.file_text), Precondition(absent=True)
        )
        self._history.add(real, Edit(None, written.etag))
        return models.EditorResult(
            output=f"Created {request.path}.", path=request.path, prev_exist=False, new_content=request.file_text
        )

    def _str_replace(self, request: models.EditorRequest) -> models.EditorResult:
        if not request.old_str:
            raise SandboxError("invalid_request", "str_replace needs old_str")
        line = 0

        def alter(before: text.Text) -> bytes:
            nonlocal line
            places = before.found(request.old_str or "")
            if not places:
                raise SandboxError("text_not_found", f"old_str does not occur in {request.path}")
            if len(places) > 1 and request.replace_mode is None:
                numbers = ", ".join(str(before.content.count("\n", 0, place.start) + 1) for place in places[:10])
                message = f"old_str occurs {len(places)} times in {request.path}, in lines {numbers}"
                raise SandboxError("text_not_unique", message)
            if request.replace_mode == "LAST":
                places = places[-1:]
            elif request.replace_mode != "ALL":
                places = places[:1]
            line = before.content.count("\n", 0, places[0].start)
            return before.replaced(places, request.new_str or "")

        return self._edit(request, alter, lambda: (line, (request.new_str or "").count("\n") + 1))

    def _insert(self, request: models.EditorRequest) -> models.EditorResult:
        if request.insert_line is None or request.new_str is None:
            raise SandboxError("invalid_request", "insert needs insert_line and new_str")
        wanted, new = request.insert_line, request.new_str

        def alter(before: text.Text) -> bytes:
            lines = _lines(before.content)
            if wanted > len(lines):
                raise SandboxError("invalid_request", f"{request.path} has {len(lines)} lines, fewer than {wanted}")
            above, below = "".join(lines[:wanted]), lines[wanted:]
            # The text becomes lines of its own, also after a last line without an end.
            start = "\n" if above and not above.endswith("\n") else ""
            end = "\n" if below and not new.endswith("\n") else ""
            return before.replaced([range(len(above), len(above))], start + new + end)

        return self._edit(request, alter, lambda: (wanted, new.count("\n") + 1))

    def _edit(
        self, request: models.EditorRequest, alter: Callable[[text.Text], bytes], place: Callable[[], tuple[int, int]]
    ) -> models.EditorResult:
        raw = b""

        def keeping(before: text.Text) -> bytes:
            nonlocal raw
            raw = before.raw
            return alter(before)

        real = self._files.paths.resolve(request.path)
        old, new, found = self._files.change(request.path, keeping)
        self._history.add(real, Edit(raw, etag(found)))
        line, count = place()
        first = max(0, line - AROUND)
        part = "".join(_lines(new)[first : line + count + AROUND]).removesuffix("\n")
        output = f"Edited {request.path}. It now reads there:\n{numbered(part, first + 1)}"
        return models.EditorResult(
            output=self._cut(output), path=request.path, prev_exist=True, old_content=old, new_content=new
        )

    def _undo_edit(self, request: models.EditorRequest) -> models.EditorResult:
        real = self._files.paths.resolve(request.path)
        edit = self._history.last(real)
        if edit is None:
            raise SandboxError("conflict", f"no edit of {request.path} is known", hint="There is nothing to undo.")
        unchanged = Precondition(etags=frozenset([edit.etag.strip('"')]))
        before = self._files.load(request.path)[1] if real.is_file() else b""
        if edit.content is None:
            self._files.delete(models.DeleteRequest(path=str(real)), unchanged)
            output, content = f"Removed {request.path}: the edit had created it.", None
        else:
            content = edit.content.decode()
            request_back = models.WriteRequest(file=request.path, content=content, encoding="raw")
            self._files.write(request_back, unchanged)
            output = f"Undid the last edit of {request.path}."
        self._history.drop(real)
        if content is not None:
            self._history.renew(real, real.stat())
        return models.EditorResult(
            output=output, path=request.path, prev_exist=True, old_content=before.decode("utf-8", "replace"),
            new_content=content,
        )  # fmt: skip


def _lines(content: str) -> list[str]:
    """Lines with their ends; only \\n ends one."""
    lines = content.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def numbered(content: str, start: int) -> str:
    """Lines with their numbers, as `cat -n` shows them."""
    return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(content.split("\n"), start))
