"""Small readers of what callers send: conditions, ranges, credentials, pictures, front matter."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from contextlib import suppress
from typing import Any, cast

import jwt
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from sandbox_api.access.tickets import Cookies, Tickets
from sandbox_api.access.tokens import InvalidTokenError, Tokens
from sandbox_api.addresses import caller_address, public_base
from sandbox_api.compat.open_webui import panel
from sandbox_api.errors import SandboxError
from sandbox_api.file import conditions, download, pictures
from sandbox_api.settings import Settings
from sandbox_api.skills import manifest
from tests.fuzz.search import Property

SECRET = "a-secret-of-more-than-thirty-two-bytes"
SETTINGS = Settings(auth=True, jwt_secret=SecretStr(SECRET), web_assets=None)
TOKENS = Tokens(SETTINGS)
COOKIES = Cookies()
LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
DATE_WORDS = [
    "Mon", ", ", "30", " ", "Nov", "2026", "12:00:00", "GMT", "-0000", "+9999", ":", "-", "99999999999", "()", "(",
]  # fmt: skip
RANGE_WORDS = ["bytes=", "-", "0", "5", "99999999999999999999", ",", " ", "="]
HEADER_WORDS = [
    "http", "https", ",", ":", "[::1]", "::", "127.0.0.1", "localhost", "/a", "//", "@", "%", " ", "a.example:443",
]  # fmt: skip


def words(some: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(some) | LATIN, max_size=10).map("".join)


def dates_are_read_or_refused(header: str, age: int) -> None:
    """And a file's own date can be written, whatever it is."""
    try:
        conditions.seconds(header)
    except SandboxError as refusal:
        assert refusal.code == "invalid_request"
    conditions.names(header)
    found = os.stat_result((0o100644, 1, 1, 1, 0, 0, 5, age, age, age))
    conditions.http_date(found).encode("ascii")


def ranges_lie_in_the_file(header: str, size: int) -> None:
    try:
        span = download._span(Headers({"range": header}), '"tag"', "date", size, "/file")
    except SandboxError as refusal:
        assert refusal.code == "range_not_satisfiable"
        return
    assert span is None or (0 <= span.start < span.stop <= size)


def tokens_say_what_was_signed(claims: dict[str, Any], changes: list[tuple[int, str]], made_up: str) -> None:
    all_claims = json.dumps({"sub": "me", "exp": int(time.time()) + 60} | claims).encode()
    signed = jwt.PyJWS().encode(all_claims, SECRET, algorithm="HS256")
    changed = list(signed)
    for place, letter in changes:
        changed[place % len(changed)] = letter
    for token in ("".join(changed), made_up, f"{made_up}.{made_up}.", signed + made_up):
        with suppress(InvalidTokenError):
            assert asyncio.run(TOKENS.subject(token)) == str(claims.get("sub", "me"))
        TOKENS.knows_key(token)


def cookies_are_believed_only_whole(path: str, subject: str, place: int, letter: str, made_up: str) -> None:
    signed = COOKIES.sign(path, subject, 60, view_only=True)
    grant = COOKIES.read(signed)
    assert grant and (grant.path, grant.subject, grant.view_only) == (path, subject, True)
    place %= len(signed)
    if signed[place] != letter:
        assert COOKIES.read(signed[:place] + letter + signed[place + 1 :]) is None
    assert COOKIES.read(made_up) is None
    tickets = Tickets(60)
    tickets.redeem(made_up, path)


def first_messages_are_read(message: str) -> None:
    TOKENS.knows_key(panel._token(message))


def addresses_are_plain(host: str, forwarded: dict[str, str], trusted: bool) -> None:
    settings = Settings(trusted_proxies="10.0.0.1" if trusted else "10.0.0.2", web_assets=None)
    names = {"host": host} | {f"x-forwarded-{name}": value for name, value in forwarded.items()}
    scope = {
        "type": "http", "scheme": "http", "path": "/", "query_string": b"", "server": ("10.0.0.9", 8080),
        "client": ("10.0.0.1", 5),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in names.items()],
    }  # fmt: skip
    connection = HTTPConnection(scope)
    assert public_base(connection, settings).startswith(("http://", "https://"))
    caller_address(connection, settings)


def pictures_have_a_size_or_none(content: bytes) -> None:
    size = pictures.dimensions(cast(Any, io.BytesIO(content)))
    assert size is None or min(size) >= 0


def front_matter_is_json(text: str) -> None:
    fields, rest = manifest.parse(text)
    json.dumps(fields)
    assert rest in text or "\n" in rest


PICTURE_WORDS = [
    b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"\xff\xc0", b"\xff\xe0\0\x02", b"\0\0\0\rIHDR", bytes(8),
]  # fmt: skip
PICTURE = st.lists(
    st.sampled_from(PICTURE_WORDS)
    | st.binary(max_size=9),
    max_size=8,
).map(b"".join)  # fmt: skip
FRONT_WORDS = [
    "---\n", "name: ", "a", "- ", "\n", "  ", "|\n", ">\n", "[", "]", ",", "#", ":", "'", '"', "\r", "\u2028", "null",
]  # fmt: skip
CLAIMS = ["sub", "exp", "nbf", "aud", "iss", "iat"]
ANY_TEXT = st.text(st.characters(), max_size=8)  # with lone surrogates
JSON_TEXT = st.one_of(
    ANY_TEXT,
    ANY_TEXT.map(lambda token: json.dumps({"token": token})),
    st.integers(1, 5000).map(lambda depth: "[" * depth),
)

PROPERTIES = (
    Property(dates_are_read_or_refused, {"header": words(DATE_WORDS), "age": st.integers(-(2**62), 2**62)}),
    Property(ranges_lie_in_the_file, {"header": words(RANGE_WORDS), "size": st.integers(0, 20)}),
    Property(
        tokens_say_what_was_signed,
        {
            "claims": st.dictionaries(st.sampled_from(CLAIMS), st.none() | st.integers() | LATIN, max_size=2),
            "changes": st.lists(st.tuples(st.integers(0), st.sampled_from("aZ09-_.=+/ é"))),
            "made_up": words([".", "e30", "eyJhbGciOiJub25lIn0", "eyJhbGciOlsxXX0", "=", "-"]),
        },
    ),
    Property(
        cookies_are_believed_only_whole,
        {"path": LATIN, "subject": LATIN, "place": st.integers(0), "letter": st.sampled_from("0f.g"),
         "made_up": words([".", "00", "ff"])},
    ),
    Property(first_messages_are_read, {"message": JSON_TEXT}),
    Property(
        addresses_are_plain,
        {
            "host": words(HEADER_WORDS),
            "forwarded": st.dictionaries(st.sampled_from(["proto", "host", "prefix", "for"]), words(HEADER_WORDS)),
            "trusted": st.booleans(),
        },
    ),
    Property(pictures_have_a_size_or_none, {"content": PICTURE}),
    Property(front_matter_is_json, {"text": words(FRONT_WORDS)}),
)  # fmt: skip
