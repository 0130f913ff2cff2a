"""What is kept of a request and its response, for the network log and HAR files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from playwright.async_api import Request, Response

KEPT_BODY = 65_536
KEPT_URL = 4096
_numbers = count(1)


@dataclass
class Exchange:
    id: int
    method: str
    url: str
    resource_type: str
    request_headers: dict[str, str]
    post_data: str | None
    timestamp: float
    status: int | None = None
    status_text: str = ""
    response_headers: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    duration_ms: float | None = None
    timing: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, request: Request) -> Exchange:
        try:
            body = request.post_data
        except UnicodeDecodeError:
            body = None  # binary
        return cls(
            id=next(_numbers),
            method=request.method,
            url=request.url[:KEPT_URL],
            resource_type=request.resource_type,
            request_headers=dict(request.headers),
            post_data=body[:KEPT_BODY] if body else None,
            timestamp=time.time(),
        )

    def answered(self, response: Response) -> None:
        self.status, self.status_text = response.status, response.status_text
        self.response_headers = dict(response.headers)

    def ended(self, request: Request, failure: str | None) -> None:
        self.failure = failure
        self.duration_ms = round((time.time() - self.timestamp) * 1000, 1)
        self.timing = dict(request.timing)

    @property
    def size(self) -> int:
        length = self.response_headers.get("content-length", "")
        return int(length) if length.isdigit() else -1

    def listed(self) -> dict[str, Any]:
        kind = self.response_headers.get("content-type", "")
        facts = {name: value for name, value in vars(self).items() if name != "timing"}
        return {**facts, "mime_type": kind, "size": self.size}

    def har(self) -> dict[str, Any]:
        """An entry of HAR 1.2; -1 stands for what is not known, as the format has it."""
        timing = self.timing

        def between(start: str, end: str) -> float:
            first, last = timing.get(start, -1), timing.get(end, -1)
            return round(last - first, 3) if first >= 0 and last >= first else -1

        parts = {
            "blocked": -1,
            "dns": between("domainLookupStart", "domainLookupEnd"),
            "connect": between("connectStart", "connectEnd"),
            "ssl": between("secureConnectionStart", "connectEnd"),
            "send": 0,
            "wait": max(0, between("requestStart", "responseStart")),
            "receive": max(0, between("responseStart", "responseEnd")),
        }
        request: dict[str, Any] = {
            "method": self.method,
            "url": self.url,
            "httpVersion": "",
            "cookies": [],
            "headers": _pairs(self.request_headers),
            "queryString": [{"name": name, "value": value} for name, value in parse_qsl(urlsplit(self.url).query)],
            "headersSize": -1,
            "bodySize": len(self.post_data or ""),
        }
        if self.post_data:
            request["postData"] = {"mimeType": self.request_headers.get("content-type", ""), "text": self.post_data}
        entry = {
            "startedDateTime": datetime.fromtimestamp(self.timestamp, UTC).isoformat(timespec="milliseconds"),
            "time": max(0, self.duration_ms or 0),
            "request": request,
            "response": {
                "status": self.status or 0,
                "statusText": self.status_text,
                "httpVersion": "",
                "cookies": [],
                "headers": _pairs(self.response_headers),
                "content": {"size": self.size, "mimeType": self.response_headers.get("content-type", "")},
                "redirectURL": self.response_headers.get("location", ""),
                "headersSize": -1,
                "bodySize": self.size,
            },
            "cache": {},
            "timings": parts,
            "_resourceType": self.resource_type,
        }
        return {**entry, "_error": self.failure} if self.failure else entry


def _pairs(headers: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers.items()]
