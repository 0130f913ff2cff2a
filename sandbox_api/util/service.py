"""Turns documents into Markdown, in a process of its own for each."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import mimetypes
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from sandbox_api import privileges
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings
from sandbox_api.util import convert

PROGRAM = Path(convert.__file__)
AT_ONCE = 2
"""A conversion takes a processor and some hundred megabytes."""
CODES = {
    convert.TOO_LARGE: "too_large",
    convert.NOT_FETCHED: "fetch_failed",
    convert.UNKNOWN_KIND: "unsupported_media_type",
}
KINDS = "PDF, Word, PowerPoint, Excel, HTML, CSV, JSON, XML, RSS, plain text, notebooks, EPUB and zip are understood"


class UtilService:
    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._settings = settings
        self._paths = paths
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._running: set[subprocess.Popen[bytes]] = set()

    async def start(self) -> None: ...

    async def stop(self) -> None:
        for process in set(self._running):
            self._end(process)

    async def health(self) -> Health:
        if importlib.util.find_spec("markitdown") is None:
            return Health(status="unavailable", detail="the Python package markitdown is not installed")
        version = importlib.metadata.version("markitdown")
        return Health(status="ready", version=version, address="/v1/util/convert_to_markdown")

    async def convert_to_markdown(self, uri: str) -> str:
        """The document behind an address or a path, as Markdown.

        Raises:
            SandboxError: `invalid_request`, `too_large`, `fetch_failed`, `unsupported_media_type`,
                `conversion_failed`, `conversion_timeout`, `limit_reached`, and those of paths.
        """
        source, data = self._source(uri)
        try:
            async with asyncio.timeout(self._settings.convert_timeout_s):
                await self._turns.acquire()
        except TimeoutError as error:
            raise SandboxError("limit_reached", f"{AT_ONCE} documents are being converted") from error
        try:
            return await asyncio.to_thread(self._convert, source, data)
        finally:
            self._turns.release()

    def _source(self, uri: str) -> tuple[str, bytes | None]:
        """The program's argument, and what it reads from its standard input."""
        scheme = uri.partition(":")[0].lower()
        if scheme in ("http", "https"):
            try:
                host = urlsplit(uri).hostname
            except ValueError:
                host = None
            if not host or len(uri) > 8192 or not uri.isprintable() or " " in uri:
                raise SandboxError("invalid_request", "uri: not a valid address")
            return f"{scheme}:{uri.partition(':')[2]}", None
        if scheme == "data":
            return self._inline(uri)
        if scheme == "file":
            parts = urlsplit(uri)
            if parts.netloc not in ("", "localhost"):
                raise SandboxError("invalid_request", f"uri: a file of another machine: {parts.netloc}")
            uri = url2pathname(parts.path)
        elif not Path(uri).is_absolute():
            raise SandboxError("invalid_request", "uri: give an http, https, file or data address, or an absolute path")
        path = self._paths.resolve(uri)
        if path.is_dir():
            raise SandboxError("not_a_file", f"this is a folder: {uri}")
        if not path.is_file():
            raise SandboxError("file_not_found", f"there is no such file: {uri}")
        if path.stat().st_size > self._settings.convert_bytes:
            raise self._too_large()
        return str(path), None

    def _inline(self, uri: str) -> tuple[str, bytes]:
        import base64
        import binascii

        head, comma, body = uri.partition(",")
        if not comma:
            raise SandboxError("invalid_request", "uri: a data address has a comma before its content")
        if len(body) > 3 * self._settings.convert_bytes:
            raise self._too_large()
        words = head[5:].split(";")
        try:
            raw = unquote_to_bytes(body)
            data = base64.b64decode(raw, validate=True) if "base64" in words[1:] else raw
        except (binascii.Error, ValueError) as error:
            raise SandboxError("invalid_request", f"uri: the content is not valid base64: {error}") from error
        if len(data) > self._settings.convert_bytes:
            raise self._too_large()
        return "-" + (mimetypes.guess_extension(words[0] or "text/plain") or ""), data

    def _too_large(self) -> SandboxError:
        return SandboxError("too_large", f"more than SANDBOX_CONVERT_BYTES ({self._settings.convert_bytes} bytes)")

    def _convert(self, source: str, data: bytes | None) -> str:
        patience = self._settings.convert_timeout_s
        process = subprocess.Popen(
            privileges.dropped([sys.executable, "-I", str(PROGRAM), source, str(self._settings.convert_bytes)]),
            env=child_environment(self._settings),
            cwd=self._settings.workspace_path,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._running.add(process)
        try:
            markdown, problems = process.communicate(data, timeout=patience)
        except subprocess.TimeoutExpired as error:
            raise SandboxError("conversion_timeout", f"not converted within {patience:g} s") from error
        finally:
            self._end(process)
            self._running.discard(process)
        if process.returncode == 0:
            if len(markdown) > self._settings.read_bytes:
                raise SandboxError(
                    "too_large", f"its Markdown is over SANDBOX_READ_BYTES ({self._settings.read_bytes})"
                )
            return markdown.decode(errors="replace")
        reason = problems.decode(errors="replace").strip().splitlines()
        code = CODES.get(process.returncode, "conversion_failed")
        hint = f"Of the kinds of documents, {KINDS}." if code == "unsupported_media_type" else None
        raise SandboxError(code, reason[-1] if reason else "the converter failed", hint=hint)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait()
