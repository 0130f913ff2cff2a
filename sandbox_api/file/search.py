"""Searching contents, always in a program of its own that can be killed: a regular expression may take for ever.

ripgrep searches folders where it is installed: with its own engine, in linear time, or with PCRE2 where the expression
needs that (lookaround, backreferences). `scan.py` searches single files, and everything on hosts without ripgrep.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

from sandbox_api import privileges
from sandbox_api.errors import SandboxError
from sandbox_api.file.failures import shown
from sandbox_api.file.models import GrepMatch, GrepRequest, GrepResult, SearchRequest, SearchResult
from sandbox_api.file.patterns import Names
from sandbox_api.file.scan import cut
from sandbox_api.file.tree import Budget, walk

SCAN = Path(__file__).with_name("scan.py")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
MOST_FILES = 100_000
INVALID, TOO_EXPENSIVE = r"PCRE2: error compiling pattern at offset \d+: (.*)", "PCRE2: error matching"
"""What ripgrep says, of an expression and of a match that takes too many steps."""
# Of types that ripgrep knows under a name that is not the ending.
ENDINGS = {
    "python": ("py", "pyi"), "py": ("py", "pyi"), "js": ("js", "jsx", "mjs", "cjs"), "ts": ("ts", "tsx", "mts", "cts"),
    "rust": ("rs",), "markdown": ("md", "markdown"), "yaml": ("yaml", "yml"), "sh": ("sh", "bash", "zsh"),
    "html": ("html", "htm"), "cpp": ("cpp", "cc", "cxx", "hpp", "hh", "h"), "c": ("c", "h"),
}  # fmt: skip


class Searches:
    """Starts the programs, and ends those that take too long or are left over.

    Args:
        environment: variables of the programs.
        seconds: time for one search.
        most_bytes: largest file whose lines are matched together.
    """

    def __init__(self, environment: Mapping[str, str], seconds: float, most_bytes: int) -> None:
        self._environment = dict(environment)
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._running: set[subprocess.Popen[bytes]] = set()

    def stop(self) -> None:
        for process in tuple(self._running):
            process.kill()

    def in_file(self, real: Path, request: SearchRequest) -> SearchResult:
        """Raises `invalid_request` for an invalid expression."""
        result = SearchResult(file=request.file)
        with self._scan([str(real)], request.regex, 0, request.max_results) as (matches, state):
            for match in matches:
                result.matches.append(match.line_content)
                result.line_numbers.append(match.line_number - 1)
        result.timed_out, result.truncated = state.timed_out, state.more or state.timed_out
        return result

    def grep(self, real: Path, request: GrepRequest) -> GrepResult:
        """Raises `invalid_request` for an invalid expression or file type."""
        if "\0" in "".join([request.pattern, *request.include, *request.exclude]):
            raise SandboxError("invalid_request", "a pattern has a NUL character")
        wanted = request.offset + request.max_results
        found = self._ripgrep(real, request, wanted)
        if found is None:
            flags = (re.IGNORECASE if request.case_insensitive else 0) | (
                re.MULTILINE | re.DOTALL if request.multiline else 0
            )
            pattern = re.escape(request.pattern) if request.fixed_strings else request.pattern
            files = self._files(real, request)
            with self._scan(files, pattern, flags, wanted, request) as (matches, state):
                found = list(matches), state
        all_matches, state = found
        return GrepResult(
            path=request.path,
            pattern=request.pattern,
            matches=all_matches[request.offset : wanted],
            match_count=len(all_matches),
            files_searched=state.files,
            files_matched=len({match.file for match in all_matches}),
            truncated=state.more or state.timed_out,
            timed_out=state.timed_out,
        )

    def _ripgrep(self, real: Path, request: GrepRequest, wanted: int) -> tuple[list[GrepMatch], _State] | None:
        """None if there is no ripgrep, or one without PCRE2 that does not know the expression."""
        program = shutil.which("rg", path=self._environment.get("PATH"))
        if program is None:
            return None
        multiline = ["--multiline", "--multiline-dotall"] if request.multiline else []
        switches = {
            "--hidden": request.include_hidden,
            "--ignore-case": request.case_insensitive,
            "--fixed-strings": request.fixed_strings,
            "--max-depth=1": not request.recursive and real.is_dir(),
        }
        arguments = [
            program, "--json", "--engine=auto", "--no-config", "--no-ignore", "--sort=path",
            f"--before-context={request.context_before}", f"--after-context={request.context_after}",
            f"--max-filesize={self._largest(request)}", *multiline,
            *(switch for switch, on in switches.items() if on),
            *(f"--glob={pattern}" for pattern in request.include),
            *(f"--glob=!{pattern}" for pattern in request.exclude), "--glob=!.sandbox-*.tmp",
            *([f"--type={request.type}"] if request.type else []), f"--regexp={request.pattern}", "--", str(real),
        ]  # fmt: skip
        folder = real if real.is_dir() else real.parent
        with self._program(arguments, folder) as (lines, state):
            reader = _RipgrepReader(request, wanted)
            for line in lines:
                if reader.take(json.loads(line)):
                    state.more = True
                    break
        matches = reader.matches[:wanted]
        if not state.more and not state.timed_out and not reader.ended:
            if "unrecognized file type" in state.complaint:
                raise SandboxError("invalid_request", f"ripgrep knows no file type {request.type}")
            if found := re.search(INVALID, state.complaint):
                raise SandboxError("invalid_request", f"the regular expression is invalid: {found[1]}")
            return None
        state.timed_out |= TOO_EXPENSIVE in state.complaint
        state.files = None if state.more or state.timed_out else reader.searched
        return matches, state

    def _largest(self, request: GrepRequest) -> int:
        number, unit = re.fullmatch(r"(\d+)([KMG]?)", request.max_file_size.upper()).groups()  # type: ignore[union-attr]
        return min(int(number) * UNITS.get(unit, 1), self._most_bytes)

    def _files(self, real: Path, request: GrepRequest) -> list[str]:
        if not real.is_dir():
            return [str(real)]
        include, exclude, largest = Names(request.include), Names(request.exclude), self._largest(request)
        endings = tuple("." + ending for ending in ENDINGS.get(request.type, (request.type,))) if request.type else ()

        def wanted(name: str, parts: tuple[str, ...]) -> bool:
            return (request.include_hidden or not name.startswith(".")) and not exclude.match(parts)

        files = []
        budget = Budget(self._seconds)
        for entry, parts in walk(
            str(real), budget, lambda entry, parts: request.recursive and wanted(entry.name, parts)
        ):
            if (
                entry.is_file(follow_symlinks=False)
                and wanted(entry.name, parts)
                and (not include or include.match(parts))
                and entry.name.endswith(endings or "")
                and entry.stat(follow_symlinks=False).st_size <= largest
            ):
                files.append(entry.path)
                if len(files) == MOST_FILES:
                    break
        return files

    @contextmanager
    def _scan(
        self, files: list[str], pattern: str, flags: int, wanted: int, request: GrepRequest | None = None
    ) -> Iterator[tuple[Iterator[GrepMatch], _State]]:
        job = {
            "pattern": pattern,
            "flags": flags,
            "files": files,
            "multiline": request.multiline if request else False,
            "before": request.context_before if request else 0,
            "after": request.context_after if request else 0,
        }
        arguments = [sys.executable, "-I", "-S", str(SCAN)]
        with self._program(arguments, SCAN.parent, json.dumps(job).encode() + b"\n") as (lines, state):

            def matches() -> Iterator[GrepMatch]:
                count = state.files = 0
                for line in lines:
                    kind, *what = json.loads(line)
                    if kind == "error":
                        raise SandboxError("invalid_request", f"the regular expression is invalid: {what[0]}")
                    if kind == "file":
                        state.files += 1
                        continue
                    if count == wanted:
                        state.more = True
                        return
                    count += 1
                    path, number, text, before, after = what
                    around = {"context_before": before, "context_after": after} if before or after else {}
                    yield GrepMatch(file=shown(path), line_number=number, line_content=text, **around)

            yield matches(), state

    @contextmanager
    def _program(
        self, arguments: list[str], folder: Path, task: bytes = b""
    ) -> Iterator[tuple[Iterator[bytes], _State]]:
        """Lines that a program writes, until it ends or its time is over. It is gone afterwards."""
        state = _State()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as complaints:
            given.write(task)
            given.seek(0)
            process = subprocess.Popen(
                privileges.dropped(arguments, self._environment),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=folder,
                env=self._environment,
            )
            self._running.add(process)

            def end() -> None:
                state.timed_out = True
                process.kill()

            timer = Timer(self._seconds, end)
            timer.daemon = True
            timer.start()
            assert process.stdout is not None
            try:
                # A line that was cut by the kill is left out.
                yield (line for line in process.stdout if line.endswith(b"\n")), state
            finally:
                timer.cancel()
                process.kill()
                process.stdout.close()
                process.wait()
                self._running.discard(process)
                complaints.seek(0)
                state.complaint = complaints.read(2**16).decode("utf-8", "replace")


class _State:
    """How a search went."""

    def __init__(self) -> None:
        self.timed_out = False
        self.more = False
        self.complaint = ""
        self.files: int | None = None


def _text(value: dict[str, str]) -> str:
    """ripgrep gives bytes that are no UTF-8 as base64."""
    return value["text"] if "text" in value else base64.b64decode(value["bytes"]).decode("utf-8", "replace")


class _RipgrepReader:
    """Puts ripgrep's JSON lines together to matches with their context."""

    def __init__(self, request: GrepRequest, wanted: int) -> None:
        self.matches: list[GrepMatch] = []
        self.ended = False
        self.searched = 0
        self._request = request
        self._wanted = wanted
        self._lines: dict[int, str] = {}
        self._first = 0  # match of the file that is being read

    def take(self, event: dict[str, Any]) -> bool:
        """Returns: whether all that is wanted has been found, and more."""
        kind, data = event["type"], event["data"]
        if kind in ("match", "context"):
            number, text = data["line_number"], _text(data["lines"]).removesuffix("\n").removesuffix("\r")
            lines = text.split("\n")
            self._lines.update((number + place, cut(line)) for place, line in enumerate(lines))
            if kind == "match":
                match = GrepMatch(file=_text(data["path"]), line_number=number, line_content=cut(text))
                self.matches.append(match)
            if len(self.matches) > self._wanted:
                last = self.matches[self._wanted - 1]
                if self._first >= self._wanted or number >= last.line_number + self._request.context_after:
                    self._put_context()
                    return True
        elif kind == "end":
            self._put_context()
            if len(self.matches) > self._wanted:
                return True
        elif kind == "summary":
            self.ended = True
            self.searched = data["stats"]["searches"]
        return False

    def _put_context(self) -> None:
        before, after = self._request.context_before, self._request.context_after
        if before or after:
            for match in self.matches[self._first :]:
                first = match.line_number
                last = first + match.line_content.count("\n")
                match.context_before = self._between(first - before, first)
                match.context_after = self._between(last + 1, last + 1 + after)
        self._lines = {}
        self._first = len(self.matches)

    def _between(self, start: int, end: int) -> list[str]:
        return [self._lines[number] for number in range(start, end) if number in self._lines]
