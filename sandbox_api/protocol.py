"""HTTP as uvicorn speaks it, except for two things.

A client's wish for another protocol is ignored, and a route may receive the body of a PUT request by itself.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WISH = {b"upgrade", b"http2-settings"}
PROTOCOL = "sandbox.protocol"
"""Key in the scope of a PUT request: its `Protocol`."""


class Protocol(HttpToolsProtocol):
    """Answers a request with `Upgrade: h2c`, which the JDK's client sends, as one without.

    The parser takes what follows such a head for the other protocol, and the body would be lost. So it gets the head
    again, without the wish.
    """

    _skipped = 0
    """Bytes to come that nobody wants."""

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._skipped:
            data, self._skipped = data[self._skipped :], max(0, self._skipped - len(data))
            if not data:
                return
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                elif self._is_wish():
                    data = self._head_without_wish() + data[upgrade.args[0] :]
                    self.parser = self._new_parser()
                    continue
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
            return

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._body_received = 0

    def on_headers_complete(self) -> None:
        if self._is_wish():
            return
        super().on_headers_complete()
        if self.scope["method"] == "PUT":
            self.scope[PROTOCOL] = self  # type: ignore[literal-required]

    def on_body(self, body: bytes) -> None:
        self._body_received += len(body)
        super().on_body(body)

    def take_body(self, length: int) -> tuple[bytes, int]:
        """Stop reading in the middle of a body. Whoever calls this reads the rest from `fileno`, then calls
        `return_body`.

        Args:
            length: of the whole body.

        Returns:
            What `receive` has not handed out yet, and the number of bytes that have not been read.
        """
        self.flow.pause_reading()
        received, self.cycle.body = bytes(self.cycle.body), bytearray()
        return received, length - self._body_received

    def return_body(self, left: int) -> None:
        """Go on with the next request, after what is left of the body."""
        if self.cycle.more_body:
            self.parser = self._new_parser()  # the one before waits for the body
            self._skipped = left
            self.cycle.more_body = False

    def fileno(self) -> int:
        number: int = self.transport.get_extra_info("socket").fileno()
        return number

    def on_message_complete(self) -> None:
        if not self._is_wish():
            super().on_message_complete()

    def _is_wish(self) -> bool:
        """Whether the message asks for a protocol that is not spoken here. CONNECT has a form of its own."""
        asks = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        return asks and not self._should_upgrade()

    def _head_without_wish(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name not in WISH]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return parser
