"""What runs in the sandbox writes: kernels' messages, output, the dumps of sessions, JSON of programs."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sandbox_api import unicode
from sandbox_api.code.kernel import Kernel, Run
from sandbox_api.code.models import Execution
from sandbox_api.code.output import Collector
from sandbox_api.code.wire import DELIMITER, Codec
from sandbox_api.envelope import Envelope, ok
from sandbox_api.settings import Settings
from sandbox_api.shell import state
from sandbox_api.shell.spool import Spool
from tests.fuzz.search import Property

SETTINGS = Settings(web_assets=None)
WORDS = [
    "msg_type", "msg_id", "name", "text", "data", "metadata", "execution_count", "ename", "evalue", "traceback",
    "transient", "display_id", "text/plain", "image/png", "stdout", "stderr", "wait", "status", "payload", "source",
    "page", "execution_state", "idle", "user_expressions", "entered",
]  # fmt: skip
KINDS = [
    "stream", "execute_result", "display_data", "update_display_data", "error", "clear_output", "execute_input",
    "status", "comm_open",
]  # fmt: skip
ANY_TEXT = st.text(st.characters(), max_size=8)  # with lone surrogates
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | ANY_TEXT, inner, max_size=5),
    max_leaves=12,
)
CONTENT = (
    VALUE
    | st.dictionaries(st.sampled_from(WORDS), VALUE, max_size=8)
    | st.fixed_dictionaries({"data": st.dictionaries(st.sampled_from(WORDS), VALUE)}, optional={"metadata": VALUE})
    | st.fixed_dictionaries({"ename": VALUE, "evalue": VALUE, "traceback": VALUE | st.lists(VALUE)})
    | st.fixed_dictionaries({"name": VALUE, "text": VALUE})
)
DEEP = st.integers(1, 3000).map(lambda depth: b'{"data": {"x": ' + b"[" * depth + b"]" * depth + b"}}")
BODY = CONTENT.map(lambda value: json.dumps(value).encode()) | DEEP | st.binary(max_size=20)


def strange_frames_are_none(frames: list[bytes]) -> None:
    message = Codec().unpack(frames)
    if message is not None:
        assert isinstance(message.kind, str) and isinstance(message.parent, str)
        assert isinstance(message.content, dict)


def messages_come_back(content: dict[str, Any]) -> None:
    codec = Codec()
    identity, frames = codec.pack("kind", content)
    message = codec.unpack(frames)
    assert message and message.kind == "kind" and identity


def output_can_be_sent(messages: list[tuple[str, bytes]]) -> None:
    """Whatever a kernel publishes, the answer has its form and can be written as JSON."""

    async def collect() -> Execution:
        collector = Collector(SETTINGS)
        run = Run("mine", collector)
        kernel = Kernel(SETTINGS, Path("/nowhere"), None)
        kernel._codec, kernel._run = Codec(), run
        for kind, body in messages:
            header = json.dumps({"msg_type": kind}).encode()
            kernel._on_iopub([DELIMITER, b"", header, b'{"msg_id": "mine"}', b"{}", body])
        answer = Execution(status="ok", code="", execution_count=run.count)
        return answer.model_copy(update=collector.fields())

    answer = asyncio.run(collect())
    # As FastAPI does with what a route returns.
    checked = Envelope[Execution].model_validate(ok(answer).model_dump())
    unicode.dump_model(checked).decode()


def json_goes_through(value: Any) -> None:
    """What another program wrote as JSON can be written again."""
    assert json.loads(unicode.dumps(unicode.loads(json.dumps(value)))) is not ...


def any_json_is_read_or_refused(raw: bytes) -> None:
    try:
        unicode.dumps(unicode.loads(raw)).decode()
    except ValueError:
        return


def dumps_of_sessions_are_read(dump: bytes) -> None:
    found = state.read_dump(dump)
    if found:
        kept = state.State(Path("/"), {})
        kept.follow(dump, (), kept.start(1))
        script = kept.script(())
        assert script is None or isinstance(script, str)
        kept.environment({"A": "b"})


def _alike(text: str, data: bytes) -> bool:
    """Bytes that are not UTF-8 may be replaced one by one, or some together."""
    return re.sub("\ufffd+", "\ufffd", text) == re.sub("\ufffd+", "\ufffd", data.decode(errors="replace"))


def output_is_kept(pieces: list[bytes], capacity: int, limit: int) -> None:
    """The first half and the last half, readable by offsets, in whole characters."""
    whole = b"".join(pieces)
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(capacity, Path(folder))
        for piece in pieces:
            spool.append(piece)
        assert spool.size == len(whole) and spool.dropped == max(0, len(whole) - capacity)
        read = bytearray()
        at = 0
        while at < spool.size:
            data, start = spool.read(at, 7)
            assert data == whole[start : start + len(data)] and data
            read += data
            at = start + len(data)
        head = capacity // 2
        kept = whole if len(whole) <= capacity else whole[:head] + whole[len(whole) - (capacity - head) :]
        assert bytes(read) == kept
        parts, at = [], 0
        while at < spool.size:
            text, after = spool.text(at, max(1, limit), final=True)
            assert after > at and len(text) <= max(1, limit)
            parts.append(text)
            at = after
        if not spool.dropped:
            assert _alike("".join(parts), whole)
        excerpt = spool.excerpt(limit, final=True)
        assert excerpt.end == spool.size and excerpt.omitted <= len(whole)
        if not excerpt.omitted:
            assert _alike(excerpt.text, whole)
        spool.close()


DUMP_WORDS = [
    b"/tmp", b"\0", b"\n", b"set -o x", b"shopt -s y", b"declare -x A=\"b\"", b"declare -- B", b"export C", b"f () \n",
    b"declare -f f", b"declare -fx f", b"alias a='b'", b"umask 0022", b"\xff", b"declare -", b"set +o", b" ",
]  # fmt: skip
HEADER = st.sampled_from(KINDS).map(lambda kind: json.dumps({"msg_type": kind}).encode())
FRAMES = st.lists(st.just(DELIMITER) | st.just(b"") | BODY | HEADER, max_size=8)
SOME_FRAMES = FRAMES | FRAMES.map(lambda rest: [DELIMITER, b"", *rest])
CHARACTERS = st.binary(max_size=12) | st.text(max_size=6).map(str.encode)

PROPERTIES = (
    Property(strange_frames_are_none, {"frames": SOME_FRAMES}),
    Property(
        messages_come_back,
        {"content": st.dictionaries(st.sampled_from(WORDS), VALUE, max_size=3)},
    ),
    Property(output_can_be_sent, {"messages": st.lists(st.tuples(st.sampled_from(KINDS), BODY), max_size=5)}),
    Property(json_goes_through, {"value": VALUE}),
    Property(any_json_is_read_or_refused, {"raw": BODY}),
    Property(
        dumps_of_sessions_are_read,
        {"dump": st.lists(st.sampled_from(DUMP_WORDS) | st.binary(max_size=6), max_size=30).map(b"".join)
         | st.lists(st.lists(st.sampled_from(DUMP_WORDS[2:]), max_size=4).map(b"\n".join), min_size=6, max_size=6).map(
            b"\0".join)},
    ),
    Property(
        output_is_kept,
        {"pieces": st.lists(CHARACTERS, max_size=12), "capacity": st.integers(2, 60), "limit": st.integers(0, 40)},
    ),
)  # fmt: skip
