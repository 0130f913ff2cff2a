"""Where releases come from: folders, tars and servers, the faithless ones too."""

from __future__ import annotations

import http.server
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.source import Source, Web, open_source

CONTENT = bytes(range(256)) * 20_000
NAME = "part.tar.zst"
MOST = len(CONTENT)


@dataclass
class Server:
    """A server of one folder; how it misbehaves may be changed while it runs."""

    folder: Path
    url: str = ""
    cut_after: int | None = None
    """Bytes after which an answer, once, is broken off."""
    always_cut: bool = False
    ranges: bool = True
    redirect: str | None = None
    loop: bool = False
    chunked: bool = False
    asked: list[str] = field(default_factory=list)
    """Path and range of every request."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / NAME).write_bytes(CONTENT)
    (folder / "release.json").write_text("{}")
    return folder


@pytest.fixture
def download(tmp_path: Path) -> Path:
    path = tmp_path / "download"
    path.mkdir()
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    state = Server(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(f"{self.path} {wanted}".strip())
            if target := state.redirect:
                # Before the answer: after it, the test goes on and may set the next one.
                if not state.loop:
                    state.redirect = None
                self.send_response(302)
                self.send_header("Location", target + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = state.folder / self.path.partition("?")[0].rpartition("/")[2]
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and state.ranges else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if not state.chunked:
                self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Connection", "close")
            self.end_headers()
            end = len(content) if state.cut_after is None else min(start + state.cut_after, len(content))
            if not state.always_cut:
                state.cut_after = None
            self.wfile.write(content[start:end])
            self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        yield state
        running.shutdown()


def fetch(source: Source, download: Path, name: str = NAME, most: int = MOST) -> bytes:
    seen = list[int]()
    content = source.fetch(name, download, most, seen.append).read_bytes()
    assert seen == sorted(seen)
    return content


def test_a_folder(folder: Path, download: Path) -> None:
    assert fetch(open_source(str(folder)), download) == CONTENT
    assert list(download.iterdir()) == []


def test_a_tar_of_the_folder_and_of_its_content(folder: Path, download: Path) -> None:
    for number, (base, what) in enumerate(((folder.parent, folder.name), (folder, "."))):
        archive = folder.parent / f"{number}.tar"
        subprocess.run(["tar", "-cf", str(archive), "-C", str(base), what], check=True)
        assert fetch(open_source(str(archive)), download) == CONTENT


def test_a_file_that_is_no_tar(folder: Path, download: Path) -> None:
    with pytest.raises(UpgradeError, match="is damaged"):
        fetch(open_source(str(folder / NAME)), download)


@pytest.mark.parametrize("name", ["/no/such/folder", "ftp://host/release", "file:///etc", ""])
def test_what_is_no_source(name: str) -> None:
    with pytest.raises(UpgradeError):
        source = open_source(name)
        source.fetch(NAME, Path("/nonexistent"), MOST, lambda _: None)


def test_a_link_in_the_folder_is_not_followed(folder: Path, download: Path) -> None:
    (folder / "link").symlink_to("/etc/shadow")
    with pytest.raises(UpgradeError, match="has no link"):
        fetch(open_source(str(folder)), download, "link")


@pytest.mark.parametrize("suffix", ["", "/", "/sub", "/sub/release.json"])
def test_an_address(server: Server, download: Path, suffix: str) -> None:
    assert fetch(open_source(server.url + suffix), download) == CONTENT


def test_a_query_is_kept(server: Server, download: Path) -> None:
    fetch(open_source(f"{server.url}/sub/release.json?token=5"), download)
    assert server.asked == [f"/sub/{NAME}?token=5"]


def test_a_download_that_breaks_goes_on_where_it_was(server: Server, download: Path) -> None:
    server.cut_after = 1_000_000
    assert fetch(Web(server.url), download) == CONTENT
    assert server.asked == [f"/{NAME}", f"/{NAME} bytes=1000000-"]


def test_a_later_command_goes_on_with_what_an_earlier_one_had(server: Server, download: Path) -> None:
    (download / f"{NAME}.incomplete").write_bytes(CONTENT[:77])
    assert fetch(Web(server.url), download) == CONTENT
    assert server.asked == [f"/{NAME} bytes=77-"]


def test_a_server_without_ranges_starts_over(server: Server, download: Path) -> None:
    server.cut_after, server.ranges = 1_000_000, False
    assert fetch(Web(server.url), download) == CONTENT


def test_leftovers_longer_than_the_file_are_dropped(server: Server, download: Path) -> None:
    (download / f"{NAME}.incomplete").write_bytes(CONTENT + b"more")
    assert fetch(Web(server.url), download) == CONTENT


def test_a_server_that_never_sends_anything_is_given_up(server: Server, download: Path) -> None:
    server.cut_after, server.always_cut = 0, True
    with pytest.raises(UpgradeError, match="cannot be had") as caught:
        fetch(Web(server.url), download)
    assert "run the same command again" in caught.value.fix
    assert len(server.asked) == 5


@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_longer_than_was_signed_is_not_stored(server: Server, download: Path, chunked: bool) -> None:
    server.chunked = chunked
    with pytest.raises(UpgradeError, match="larger than the 1000 bytes"):
        fetch(Web(server.url), download, most=1000)
    assert all(path.stat().st_size <= 1000 for path in download.iterdir())


def test_redirects_are_followed_to_http_only(server: Server, download: Path) -> None:
    server.redirect = server.url
    assert fetch(Web(server.url), download) == CONTENT
    for target in ("file:///etc", "ftp://127.0.0.1"):
        server.redirect = target
        with pytest.raises(UpgradeError, match="not safe to follow|not allowed"):
            fetch(Web(server.url), download)


def test_redirects_without_an_end(server: Server, download: Path) -> None:
    server.redirect, server.loop = server.url, True
    with pytest.raises(UpgradeError):
        fetch(Web(server.url), download)


def test_a_missing_file_and_a_server_that_is_not_there(server: Server, download: Path) -> None:
    with pytest.raises(UpgradeError, match="404"):
        fetch(Web(server.url), download, "absent")
    with pytest.raises(UpgradeError, match="refused"):
        fetch(Web("http://127.0.0.1:1"), download)


def test_an_address_with_a_password() -> None:
    with pytest.raises(UpgradeError, match="end up in logs"):
        open_source("https://me:secret@example.com/release")
