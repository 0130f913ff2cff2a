"""A transcript in the forms of OpenAI's API."""

from __future__ import annotations

from typing import Any

from aisandbox.auxiliary.transcription import Heard


def write(heard: Heard, form: str) -> str | dict[str, Any]:
    """The transcript as `json`, `text`, `srt`, `vtt` or `verbose_json`."""
    if form == "json":
        return {"text": text(heard)}
    if form == "verbose_json":
        return verbose(heard)
    if form == "text":
        return text(heard) + "\n"
    return subtitles(heard, vtt=form == "vtt")


def text(heard: Heard) -> str:
    """All that is said, on one line."""
    return "".join(segment.text for segment in heard.segments).strip()


def verbose(heard: Heard) -> dict[str, Any]:
    """With times, in seconds."""
    segments = [
        {"id": number, "start": round(segment.start, 2), "end": round(segment.end, 2), "text": segment.text}
        for number, segment in enumerate(heard.segments)
    ]
    return {
        "task": "transcribe",
        "language": "english",
        "duration": round(heard.duration, 2),
        "text": text(heard),
        "segments": segments,
    }


def subtitles(heard: Heard, *, vtt: bool) -> str:
    """SubRip, or WebVTT."""
    point = "." if vtt else ","
    cues = [
        ("" if vtt else f"{number}\n")
        + f"{_time(segment.start, point)} --> {_time(segment.end, point)}\n{segment.text.strip()}\n"
        for number, segment in enumerate(heard.segments, start=1)
    ]
    return "\n".join(["WEBVTT\n", *cues] if vtt else cues)


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
