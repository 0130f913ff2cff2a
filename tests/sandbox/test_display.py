"""Recording of the desktop."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from agent_sandbox import Sandbox as PeerClient

from tests.support.sandbox import Sandbox


def record(desktop: Sandbox, action: str, **fields: Any) -> Any:
    return desktop.client.post("/v1/display/record", json={"action": action, **fields}).json()


def probe(path: str) -> dict[str, Any]:
    words = ["ffprobe", "-loglevel", "error", "-show_streams", "-show_format", "-of", "json", path]
    found: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return found


def test_records_a_video_that_plays(desktop: Sandbox) -> None:
    started = record(desktop, "start", fps=10)["data"]
    assert started["status"] == "recording"
    assert Path(started["save_path"]).is_relative_to(desktop.workspace)
    again = record(desktop, "start")
    assert again["error"]["code"] == "conflict"
    time.sleep(1)
    assert record(desktop, "status")["data"]["status"] == "recording"
    stopped = record(desktop, "stop")["data"]
    assert stopped["status"] == "stopped"
    assert 1 < stopped["duration"] < 10
    assert stopped["file_size_bytes"] == Path(stopped["save_path"]).stat().st_size > 0
    found = probe(stopped["save_path"])
    stream = found["streams"][0]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 1280, 800)
    assert float(found["format"]["duration"]) > 0.5
    assert record(desktop, "stop")["data"]["status"] == "stopped"


def test_ends_by_itself_and_scales(desktop: Sandbox) -> None:
    path = str(desktop.workspace / "films" / "a b.mkv")
    assert record(desktop, "start", save_path=path, max_duration=0.5, width=641, height=401)["success"]
    deadline = time.monotonic() + 10
    while record(desktop, "status")["data"]["status"] == "recording":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stream = probe(path)["streams"][0]
    assert (stream["width"], stream["height"]) == (640, 400)


def test_nonsense_is_refused(desktop: Sandbox) -> None:
    for fields, code in (
        ({"save_path": "/etc/film.mp4"}, "path_outside"),
        ({"save_path": "film.mp4"}, "path_not_absolute"),
        ({"save_path": str(desktop.workspace / "film.txt")}, "invalid_request"),
        ({"fps": 31}, "invalid_request"),
        ({"fps": 0}, "invalid_request"),
        ({"crf": 52}, "invalid_request"),
        ({"max_duration": 0}, "invalid_request"),
    ):
        assert record(desktop, "start", **fields)["error"]["code"] == code, fields


def test_peer_client(desktop: Sandbox) -> None:
    client = PeerClient(base_url=desktop.url)
    assert client.display.record(action="start").data.status == "recording"
    answer = client.display.record(action="stop")
    assert answer.data.status == "stopped"
    assert answer.data.file_size_bytes
