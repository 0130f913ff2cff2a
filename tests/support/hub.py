"""A model hub for tests: the part of the Hugging Face protocol that downloads use, and misbehaviour.

    python -m tests.support.hub --dir FOLDER --bind 127.0.0.1 --port 8765 [--gated ORG/NAME] [--token hf_...]

serves every `FOLDER/ORG/NAME/` as a model with one revision, `main`. As at the real hub, large files are not sent by
the hub itself: it redirects to another server, here at another port, which wants no access token.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

CHUNK = 64 * 1024
PAGE = 1000
"""Files on one page of a listing."""
LARGE_SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".onnx"}
SIGNATURE = "Signature=double"
API = re.compile(r"/api/models/(?P<model>[^/]+/[^/]+)(?:/(?P<view>revision|tree)/(?P<revision>[^/]+))?")
RESOLVE = re.compile(r"/(?P<model>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass
class Faults:
    """How the hub misbehaves; may be changed while it runs."""

    gated: set[str] = field(default_factory=set)
    """Models that only the owner of `token` may read, once that account has `accepted` their terms."""
    accepted: set[str] = field(default_factory=set)
    token: str = ""
    disabled: set[str] = field(default_factory=set)
    """Models that the hub has taken down."""
    unavailable: int = 0
    """How many of the next requests are answered `status`."""
    status: int = 503
    retry_after_s: int | str | None = None
    """Seconds, or an HTTP date."""
    rate_limit_s: int | None = None
    """Seconds until the rate limit resets, told in the RateLimit headers instead."""
    files_only: bool = False
    """Whether only files are `unavailable`, not the hub's API."""
    cut_after: int | None = None
    """Bytes after which the next file download, once, is broken off."""
    stall_after: int | None = None
    """Bytes after which the next file download, once, sends nothing more, without an end."""
    stalled_api: bool = False
    """Whether requests of the API are never answered."""
    wrong_bytes: int = 0
    """How many of the next downloads of large files carry other bytes than they should."""
    wrong_small: int = 0
    """The same for files that the hub sends itself."""
    ignore_ranges: bool = False
    """Whether every download starts at the first byte, whatever was asked for."""
    bytes_per_second: float | None = None
    """Speed of one file download."""
    page: int = PAGE


class Hub(ThreadingHTTPServer):
    """The server; `requests` counts what was asked, as `METHOD path`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, bind: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((bind, port), Handler)
        self.folder = folder
        self.storage = Storage((bind, 0), self)
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        """Requests to the hub and to its storage."""
        self.sent = 0
        """Bytes of files sent."""
        self.leaked: list[str] = []
        """Credentials that were sent to the storage, where they have no business."""
        self.closing = threading.Event()
        self._digests: dict[tuple[Path, int, str], str] = {}

    @property
    def endpoint(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are nothing to write about."""

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        threading.Thread(target=self.storage.serve_forever, args=(poll_interval,), daemon=True).start()
        super().serve_forever(poll_interval)

    def shutdown(self) -> None:
        self.closing.set()
        self.storage.shutdown()
        super().shutdown()

    def server_close(self) -> None:
        self.storage.server_close()
        super().server_close()

    def files(self, model: str) -> dict[str, Path] | None:
        """The model's files by name; None when there is no such model."""
        root = self.folder / model
        if not root.is_dir():
            return None
        return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}

    def models(self) -> list[str]:
        return [str(path.relative_to(self.folder)) for path in sorted(self.folder.glob("*/*")) if path.is_dir()]

    def large(self, path: Path) -> bool:
        """Whether the file lies in the storage: git keeps only a pointer to it."""
        return path.suffix in LARGE_SUFFIXES

    def digest(self, path: Path) -> str:
        """The file's etag: sha256 of a large file, git's blob id of a small one."""
        kind = "sha256" if self.large(path) else "sha1"
        key = (path, path.stat().st_mtime_ns, kind)
        if key not in self._digests:
            with path.open("rb") as file:
                if kind == "sha256":
                    self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
                else:
                    content = file.read()
                    blob = b"blob %d\0" % len(content) + content
                    self._digests[key] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
        return self._digests[key]

    def assume_digest(self, path: Path, digest: str) -> None:
        """Take this for the file's digest, as it is now, instead of reading it."""
        self._digests[(path, path.stat().st_mtime_ns, "sha256" if self.large(path) else "sha1")] = digest

    def commit(self, files: dict[str, Path]) -> str:
        """A commit hash that changes with the files."""
        listing = "".join(f"{name}{self.digest(path)}" for name, path in files.items())
        return hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()


class Answering(BaseHTTPRequestHandler):
    """What the hub and its storage share: sending files, and misbehaving meanwhile."""

    protocol_version = "HTTP/1.1"
    wbufsize = CHUNK

    @property
    def hub(self) -> Hub:
        raise NotImplementedError

    def do_HEAD(self) -> None:
        self._count()

    def do_GET(self) -> None:
        self._count()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _count(self) -> None:
        self.path_only = unquote(urlsplit(self.path).path)
        self.hub.requests[f"{self.command} {self.path_only}"] += 1
        self.answer()

    def answer(self) -> None:
        raise NotImplementedError

    def busy(self) -> bool:
        """Answer that the hub is unavailable, if it is to be."""
        faults = self.hub.faults
        if faults.unavailable <= 0:
            return False
        faults.unavailable -= 1
        headers = {} if faults.retry_after_s is None else {"Retry-After": str(faults.retry_after_s)}
        if faults.rate_limit_s is not None:
            headers["RateLimit"] = f'"api";r=0;t={faults.rate_limit_s}'
            headers["RateLimit-Policy"] = '"fixed window";"api";q=500;w=300'
        self.error(faults.status, "", "try later", headers)
        return True

    def send_file(self, path: Path, headers: dict[str, str], wrong: bool) -> None:
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if self.hub.faults.ignore_ranges:
            wanted = None
        start, end = 0, size
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
        if start and start >= size:
            self.error(416, "", "range", {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(206 if wanted else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.flush()
            with path.open("rb") as file:
                faults = self.hub.faults
                slow = faults.bytes_per_second or faults.cut_after is not None or faults.stall_after is not None
                if slow or wrong:
                    self._send_badly(file.fileno(), start, end, wrong)
                else:
                    self._send(file.fileno(), start, end)

    def _send(self, file: int, start: int, end: int) -> None:
        while start < end:
            sent = os.sendfile(self.connection.fileno(), file, start, end - start)
            if not sent:
                raise ConnectionError("the client is gone")
            self.hub.sent += sent
            start += sent

    def _send_badly(self, file: int, start: int, end: int, wrong: bool) -> None:
        faults = self.hub.faults
        while start < end:
            limit = min(
                value for value in (CHUNK, end - start, faults.cut_after, faults.stall_after) if value is not None
            )
            chunk = os.pread(file, limit, start)
            if wrong:
                chunk = bytes(byte ^ 0xFF for byte in chunk[:16]) + chunk[16:]
            self.wfile.write(chunk)
            self.wfile.flush()
            self.hub.sent += len(chunk)
            start += len(chunk)
            if faults.cut_after is not None:
                faults.cut_after -= len(chunk)
                if faults.cut_after <= 0:
                    faults.cut_after = None
                    self.close_connection = True
                    return
            if faults.stall_after is not None:
                faults.stall_after -= len(chunk)
                if faults.stall_after <= 0:
                    faults.stall_after = None
                    self.hub.closing.wait()
                    return
            if faults.bytes_per_second:
                time.sleep(len(chunk) / faults.bytes_per_second)

    def error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        marks = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        body = json.dumps({"error": message}).encode()
        self.body(status, body, {"Content-Type": "application/json", **marks, **(headers or {})})

    def body(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Storage(ThreadingHTTPServer):
    """Where the large files lie, behind signed addresses."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        super().__init__(address, StorageHandler)
        self.hub = hub

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are nothing to write about."""


class StorageHandler(Answering):
    server: Storage

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def answer(self) -> None:
        credential = self.headers.get("Authorization")
        if credential:
            self.hub.leaked.append(credential)
            self.error(400, "", "Only one auth mechanism allowed")
        elif SIGNATURE not in urlsplit(self.path).query:
            self.error(403, "", "Request has expired")
        elif not self.busy():
            path = self.hub.folder / self.path_only.removeprefix("/")
            wrong = self.hub.faults.wrong_bytes > 0
            if wrong and self.command == "GET":
                self.hub.faults.wrong_bytes -= 1
            self.send_file(path, {"ETag": f'"{self.hub.digest(path)}"'}, wrong)


class Handler(Answering):
    server: Hub

    @property
    def hub(self) -> Hub:
        return self.server

    def answer(self) -> None:
        path = self.path_only
        if path == "/api/models":
            self._search()
            return
        match = API.fullmatch(path.rstrip("/")) or RESOLVE.fullmatch(path)
        resolve = match is not None and match.re is RESOLVE
        if self.hub.faults.stalled_api and not resolve:
            self.hub.closing.wait()
            return
        if (resolve or not self.hub.faults.files_only) and self.busy():
            return
        files = self.hub.files(match["model"]) if match else None
        refusal = self._refusal(match, files)
        if refusal or match is None or files is None:
            self.error(*(refusal or (404, "", "no such page")))
        elif resolve:
            self._file(match["model"], files, match["file"])
        elif match["view"] == "tree":
            self._tree(files)
        else:
            self._json(self._info(match["model"], files))

    def _refusal(self, match: re.Match[str] | None, files: dict[str, Path] | None) -> tuple[int, str, str] | None:
        """Status, code and message of the error to answer with, if any."""
        faults, token = self.hub.faults, self._token()
        if match is None:
            return 404, "", "no such page"
        if token is not None and token != faults.token:
            return 401, "", "Invalid credentials in Authorization header"
        if files is None:
            # The real hub hides from strangers whether a repository exists.
            return 404 if token else 401, "RepoNotFound", "Repository not found"
        if match["model"] in faults.disabled:
            return 403, "", "Access to this resource is disabled."
        if match["revision"] not in (None, "main", self.hub.commit(files)):
            return 404, "RevisionNotFound", f"Invalid rev id: {match['revision']}"
        # Only what a repository contains is gated; anybody may see that it exists.
        contents = match.re is RESOLVE or match["view"] == "tree"
        accepted = token is not None and match["model"] in faults.accepted
        if contents and match["model"] in faults.gated and not accepted:
            return 403 if token else 401, "GatedRepo", f"Access to model {match['model']} is restricted."
        return None

    def _search(self) -> None:
        if self.busy():
            return
        query = parse_qs(urlsplit(self.path).query)
        text = query.get("search", [""])[0].lower()
        author = query.get("author", [""])[0]
        limit = int(query.get("limit", ["1000"])[0])
        found = [
            name
            for name in self.hub.models()
            if text in name.lower() and (not author or name.split("/")[0].lower() == author.lower())
        ]
        self._json([{"_id": "0" * 24, "id": name, "modelId": name, "private": False} for name in found[:limit]])

    def _info(self, model: str, files: dict[str, Path]) -> dict[str, object]:
        commit = self.hub.commit(files)
        return {
            "_id": commit[:24],
            "id": model,
            "modelId": model,
            "sha": commit,
            "private": False,
            "gated": "manual" if model in self.hub.faults.gated else False,
            "siblings": [{"rfilename": name, "size": file.stat().st_size} for name, file in files.items()],
        }

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip() or None

    def _tree(self, files: dict[str, Path]) -> None:
        entries = [self._entry(name, file) for name, file in files.items()]
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = start + self.hub.faults.page
        headers = {}
        if end < len(entries):
            address = f"http://{self.headers['Host']}{quote(self.path_only)}?recursive=true&cursor={end}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._json(entries[start:end], headers)

    def _entry(self, name: str, path: Path) -> dict[str, object]:
        size, digest = path.stat().st_size, self.hub.digest(path)
        entry: dict[str, object] = {"type": "file", "path": name, "size": size, "oid": digest[:40]}
        if self.hub.large(path):
            entry["lfs"] = {"oid": digest, "size": size, "pointerSize": 130}
        return entry

    def _file(self, model: str, files: dict[str, Path], name: str) -> None:
        commit = {"X-Repo-Commit": self.hub.commit(files)}
        path = files.get(name)
        if path is None:
            self.error(404, "EntryNotFound", "Entry not found", commit)
            return
        etag = f'"{self.hub.digest(path)}"'
        if self.hub.large(path):
            host = self.headers["Host"].rpartition(":")[0] or self.headers["Host"]
            port = self.hub.storage.server_address[1]
            location = f"http://{host}:{port}/{quote(model)}/{quote(name)}?Expires=9999999999&{SIGNATURE}"
            size = str(path.stat().st_size)
            self.body(302, b"", {"Location": location, "X-Linked-Etag": etag, "X-Linked-Size": size, **commit})
            return
        wrong = self.hub.faults.wrong_small > 0
        if wrong and self.command == "GET":
            self.hub.faults.wrong_small -= 1
        self.send_file(path, {"ETag": etag, **commit}, wrong)

    def _json(self, value: object, headers: dict[str, str] | None = None) -> None:
        self.body(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


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
    with suppress(KeyboardInterrupt):
        hub.serve_forever()


if __name__ == "__main__":
    main()
