"""Where a release comes from: a folder, a tar of that folder, or an address by HTTP."""

from __future__ import annotations

import http.client
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from aisandbox.instance.keep.upgrade.bundle import MANIFEST
from aisandbox.instance.keep.upgrade.errors import UpgradeError

BLOCK = 1 << 20
TIMEOUT_S = 60
ATTEMPTS = 5
"""In a row that bring nothing at all."""
REFUSALS = (400, 401, 403, 404, 410)
"""Answers that stay the same however often one asks."""
TRY_AGAIN = "run the same command again; what has arrived is kept"
Progress = Callable[[int], None]
"""Called with how many bytes of the file have arrived."""


class Source(Protocol):
    """Gives the files of a release."""

    copies: bool
    """Whether fetching takes disk space."""

    def fetch(self, name: str, folder: Path, most: int, progress: Progress) -> Path:
        """Have the file on this disk, in `folder` if it is not there anyway; it has at most so many bytes.

        Raises:
            UpgradeError: it is missing, too large, or cannot be had.
        """
        ...


def open_source(name: str) -> Source:
    """The source that a person names.

    Raises:
        UpgradeError: there is none of that name.
    """
    if urllib.parse.urlsplit(name).scheme in ("http", "https"):
        return Web(name)
    path = Path(name)
    if path.is_dir():
        return Folder(path)
    if path.is_file():
        return Tar(path)
    if "://" in name:
        raise UpgradeError(f"{name} is no http or https address", "give an address, a folder or a tar file")
    raise UpgradeError(f"there is no folder or file {name}", "give the folder, tar file or address of a release")


def _missing(name: str, where: object) -> UpgradeError:
    return UpgradeError(f"the release has no {name} ({where})", "give the folder that `make release` wrote, or its tar")


def _too_large(name: str, most: int) -> UpgradeError:
    return UpgradeError(f"{name} is larger than the {most} bytes that it may have", "get the release again")


class Folder:
    """A folder as `make release` writes it."""

    copies = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, name: str, folder: Path, most: int, progress: Progress) -> Path:
        path = self._path / name
        if path.is_symlink() or not path.is_file():
            raise _missing(name, self._path)
        if path.stat().st_size > most:
            raise _too_large(name, most)
        return path


class Tar:
    """A tar of such a folder."""

    copies = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def fetch(self, name: str, folder: Path, most: int, progress: Progress) -> Path:
        target = folder / name
        try:
            with tarfile.open(self._path) as archive:
                # Only the last part of the name counts: people pack the folder with or without its own name.
                member = next((entry for entry in archive if entry.isfile() and Path(entry.name).name == name), None)
                if member is None:
                    raise _missing(name, self._path)
                if member.size > most:
                    raise _too_large(name, most)
                reader = archive.extractfile(member)
                assert reader
                with reader, target.open("wb") as writer:
                    _copy(reader, writer, name, most, progress)
        except (tarfile.TarError, EOFError) as error:
            raise UpgradeError(f"{self._path} is damaged: {error}", "get the release again") from error
        return target


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from the latter to the former."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if new not in ("http", "https") or (old == "https" and new != "https"):
            raise UpgradeError(f"{req.full_url} leads to {newurl}, which is not safe to follow", "use its own address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Web:
    """An address below which the folder's files lie; that of its `release.json` does as well."""

    copies = True

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.username or parts.password:
            raise UpgradeError("addresses with a password end up in logs", "give the address without it")
        self._base = urllib.parse.urlunsplit((*parts[:3], "", "")).removesuffix(MANIFEST).rstrip("/")
        self._query = f"?{parts.query}" if parts.query else ""
        # Only these: no file: and no ftp:, wherever a redirect may lead.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPErrorProcessor(),
            _Redirects(),
        ):
            self._opener.add_handler(handler)

    def fetch(self, name: str, folder: Path, most: int, progress: Progress) -> Path:
        target, partial = folder / name, folder / f"{name}.incomplete"
        failures, before = 0, -1
        while True:
            have = partial.stat().st_size if partial.exists() else 0
            failures = failures + 1 if have == before else 1
            before = have
            try:
                self._download(name, partial, have, most, progress)
                partial.replace(target)
                return target
            except (OSError, http.client.HTTPException) as error:
                # A redirect that is one here is one that may not be followed.
                if isinstance(error, urllib.error.HTTPError) and (
                    error.code < http.client.BAD_REQUEST or error.code in REFUSALS
                ):
                    raise UpgradeError(
                        f"{self._base}/{name}: the server answers {error.code} {error.reason}",
                        "check the address: it is that of the folder with release.json",
                    ) from error
                if isinstance(error, OSError) and error.errno in (28, 122):  # the disk or a quota is full
                    raise
                if failures >= ATTEMPTS:
                    reason = str(getattr(error, "reason", error)) or type(error).__name__
                    raise UpgradeError(f"{self._base}/{name} cannot be had: {reason}", TRY_AGAIN) from error

    def _download(self, name: str, partial: Path, have: int, most: int, progress: Progress) -> None:
        request = urllib.request.Request(f"{self._base}/{name}{self._query}")  # noqa: S310 - http or https: open_source
        if have:
            request.add_header("Range", f"bytes={have}-")
        try:
            response = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            # What is there is not the beginning of what the server has.
            with suppress(FileNotFoundError):
                partial.unlink()
            raise
        with response, partial.open("ab" if response.status == http.client.PARTIAL_CONTENT else "wb") as writer:
            at = writer.tell()
            told = response.headers.get("Content-Length")
            if told and told.isdecimal() and at + int(told) > most:
                raise _too_large(name, most)
            end = at + int(told) if told and told.isdecimal() else None
            _copy(response, writer, name, most, progress)
            if end is not None and writer.tell() < end:
                raise ConnectionError(f"the connection broke after {writer.tell()} of {end} bytes")


def _copy(reader: IO[bytes], writer: IO[bytes], name: str, most: int, progress: Progress) -> None:
    while block := reader.read(BLOCK):
        if writer.tell() + len(block) > most:
            raise _too_large(name, most)
        writer.write(block)
        progress(writer.tell())
