"""HTTP as uvicorn speaks it, except that a client's wish for another protocol is ignored."""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WISH = {b"upgrade", b"http2-settings"}


class Protocol(HttpToolsProtocol):
    """Answers a request with `Upgrade: h2c`, which the JDK's client sends, as one without.

    The parser takes what follows such a head for the other protocol, and the body would be lost. So it gets the head
    again, without the wish.
    """

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
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

    def on_headers_complete(self) -> None:
        if not self._is_wish():
            super().on_headers_complete()

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
