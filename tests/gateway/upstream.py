"""A small stand-in for an upstream of the gateway: speaks a little OpenAI, echoes the rest, remembers everything."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MODEL = "tiny/guide"
ANSWER = "Hello from the model: streaming works fine."


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.body)
        return data

    @property
    def wants_stream(self) -> bool:
        """Also asked of what is no JSON object."""
        try:
            return bool(self.json().get("stream"))
        except (ValueError, AttributeError, RecursionError):
            return False


@dataclass
class Upstream:
    """A server on a loopback port; use it as a context manager."""

    port: int
    pause: float = 0.1
    """Seconds between two pieces of a streamed answer."""
    seen: list[Seen] = field(default_factory=list)
    answer: str = ANSWER
    """What it streams."""
    command: str | None = None
    """Have this run by the tool `run_command`, when it is offered, and answer with what came of it."""

    def __enter__(self) -> Self:
        upstream: Upstream = self

        class Handler(_Handler):
            owner = upstream

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the chat completions asked for."""
        return [seen.json() for seen in self.seen if seen.path.endswith("/chat/completions")]


class _Handler(BaseHTTPRequestHandler):
    owner: Upstream
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        body = self._body()
        seen = Seen(self.command, self.path, list(self.headers.items()), body)
        self.owner.seen.append(seen)
        path = self.path.split("?")[0]
        if path == "/v1/models":
            self._json({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "vllm"}]})
        elif path == "/v1/chat/completions" and body and seen.wants_stream:
            self._stream()
        elif path == "/v1/chat/completions":
            message = {"role": "assistant", "content": ANSWER}
            self._json(
                {"id": "1", "object": "chat.completion", "model": MODEL, "choices": [{"index": 0, "message": message}]}
            )
        else:
            self._json({"method": self.command, "path": self.path, "headers": seen.headers, "length": len(body)})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        # As vLLM does by default.
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        reason = "stop"
        chat = self.owner.chats()[-1]
        last = (chat.get("messages") or [{"role": "user"}])[-1]
        offered = [tool["function"]["name"] for tool in chat.get("tools", [])]
        if self.owner.command and last["role"] == "user" and "run_command" in offered:
            function = {"name": "run_command", "arguments": json.dumps({"command": self.owner.command})}
            call = {"index": 0, "id": "call-1", "type": "function", "function": function}
            self._event({"delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None})
            reason = "tool_calls"
        elif last["role"] == "tool":
            self._event({"delta": {"content": f"It said: {last['content']}"}, "finish_reason": None})
        else:
            for number, word in enumerate(self.owner.answer.split(" ")):
                self._event({"delta": {"content": f" {word}" if number else word}, "finish_reason": None})
                time.sleep(self.owner.pause)
        self._event({"delta": {}, "finish_reason": reason})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, choice: dict[str, Any]) -> None:
        event = {"id": "1", "object": "chat.completion.chunk", "model": MODEL, "choices": [{"index": 0, **choice}]}
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
