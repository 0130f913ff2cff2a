"""A small model hub for tests: as much of the Hugging Face protocol as downloads need, and misbehaviour.

    python -m tests.support.hub --dir FOLDER --bind 127.0.0.1 --port 8765 [--gated ORG/NAME] [--token hf_...]

serves every `FOLDER/ORG/NAME/` as a model with one revision, `main`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHUNK = 64 * 1024
API = re.compile(r"/api/models/(?P<model>[^/]+/[^/]+)(?:/(?P<view>revision|tree)/(?P<revision>[^/]+))?")
RESOLVE = re.compile(r"/(?P<model>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Faults:
    """How the hub misbehaves; may be changed while it runs."""

    gated: set[str] = field(default_factory=set)
    """Models that only the owner of `token` may read, once that account has `accepted` their terms."""
    accepted: set[str] = field(default_factory=set)
    token: str = ""
    unavailable: int = 0
    """How many of the next requests are answered `status`."""
    status: int = 503
    retry_after_s: int | None = None
    cut_after: int | None = None
    """Bytes after which the next file download, once, is broken off."""
    bytes_per_second: float | None = None
    """Speed of one file download."""


class Hub(ThreadingHTTPServer):
    """The server; `requests` counts what was asked, as `METHOD path`."""

    daemon_threads = True

    def __init__(self, folder: Path, bind: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((bind, port), Handler)
        self.folder = folder
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.sent = 0
        """Bytes of files sent."""
        self._digests: dict[tuple[Path, int], str] = {}

    @property
    def endpoint(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def files(self, model: str) -> dict[str, Path] | None:
        """The model's files by name; None when there is no such model."""
        root = self.folder / model
        if not root.is_dir():
            return None
        return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}

    def digest(self, path: Path) -> str:
        """sha256 of the file, which is its etag."""
        key = (path, path.stat().st_mtime_ns)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[key]

    def commit(self, files: dict[str, Path]) -> str:
        """A commit hash that changes with the files."""
        listing = "".join(f"{name}{self.digest(path)}" for name, path in files.items())
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests[f"{self.command} {path}"] += 1
        faults = self.server.faults
        if faults.unavailable > 0:
            faults.unavailable -= 1
            wait = {} if faults.retry_after_s is None else {"Retry-After": str(faults.retry_after_s)}
            self._error(faults.status, "", "try later", wait)
            return
        match = API.fullmatch(path.rstrip("/")) or RESOLVE.fullmatch(path)
        files = self.server.files(match["model"]) if match else None
        refusal = self._refusal(match, files)
        if refusal or match is None or files is None:
            self._error(*(refusal or (404, "", "no such page")))
        elif match.re is RESOLVE:
            self._file(files, match["file"], self.server.commit(files))
        elif match["view"] == "tree":
            self._json([self._entry(name, file) for name, file in files.items()])
        else:
            self._json(self._info(match["model"], files))

    def _refusal(self, match: re.Match[str] | None, files: dict[str, Path] | None) -> tuple[int, str, str] | None:
        """Status, code and message of the error to answer with, if any."""
        faults, token = self.server.faults, self._token()
        if match is None:
            return 404, "", "no such page"
        if token is not None and token != faults.token:
            return 401, "", "Invalid credentials in Authorization header"
        if files is None:
            # The real hub hides from strangers whether a repository exists.
            return 404 if token else 401, "RepoNotFound", "Repository not found"
        if match["revision"] not in (None, "main", self.server.commit(files)):
            return 404, "RevisionNotFound", f"Invalid rev id: {match['revision']}"
        # Only what a repository contains is gated; anybody may see that it exists.
        contents = match.re is RESOLVE or match["view"] == "tree"
        accepted = token is not None and match["model"] in faults.accepted
        if contents and match["model"] in faults.gated and not accepted:
            return 403 if token else 401, "GatedRepo", f"Access to model {match['model']} is restricted."
        return None

    def _info(self, model: str, files: dict[str, Path]) -> dict[str, object]:
        commit = self.server.commit(files)
        return {
            "_id": commit[:24],
            "id": model,
            "modelId": model,
            "sha": commit,
            "private": False,
            "gated": "manual" if model in self.server.faults.gated else False,
            "siblings": [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()],
        }

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip() or None

    def _entry(self, name: str, path: Path) -> dict[str, object]:
        size, digest = path.stat().st_size, self.server.digest(path)
        entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": digest[:40]}
        if path.suffix == ".safetensors":
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 130}
        return entry

    def _file(self, files: dict[str, Path], name: str, commit: str) -> None:
        path = files.get(name)
        if path is None:
            self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = 0, size
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
        if start and start >= size:
            self._error(416, "", "range", {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", f'"{self.server.digest(path)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-Size", str(size))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self._send(path, start, end)

    def _send(self, path: Path, start: int, end: int) -> None:
        faults = self.server.faults
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                chunk = file.read(min(CHUNK, end - start))
                if faults.cut_after is not None:
                    chunk = chunk[: faults.cut_after]
                    faults.cut_after -= len(chunk)
                self.wfile.write(chunk)
                self.server.sent += len(chunk)
                start += len(chunk)
                if faults.cut_after == 0:
                    faults.cut_after = None
                    self.wfile.flush()
                    self.close_connection = True
                    return
                if faults.bytes_per_second:
                    time.sleep(len(chunk) / faults.bytes_per_second)

    def _json(self, value: object) -> None:
        self._body(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        marks = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        self._body(status, json.dumps({"error": message}).encode(), {**marks, **(headers or {})})

    def _body(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running(folder: Path, bind: str = "127.0.0.1", port: int = 0) -> Iterator[Hub]:
    """A hub that serves the folder until the block ends."""
    hub = Hub(folder, bind, port)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--gated", action="append", default=[], help="model that needs the token")
    parser.add_argument("--token", default="", help="the one access token that is valid")
    parser.add_argument("--unavailable", type=int, default=0, help="answer so many requests with 503 first")
    parser.add_argument("--bytes-per-second", type=float, default=None)
    arguments = parser.parse_args()
    hub = Hub(arguments.dir, arguments.bind, arguments.port)
    hub.faults = Faults(
        gated=set(arguments.gated),
        accepted=set(arguments.gated),
        token=arguments.token,
        unavailable=arguments.unavailable,
        bytes_per_second=arguments.bytes_per_second,
    )
    print(f"Serving {arguments.dir} at {hub.endpoint}", flush=True)
    hub.serve_forever()


if __name__ == "__main__":
    main()
