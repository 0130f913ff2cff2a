"""A middleware of vLLM: refuses what would cost the engine far more than an answer, and shares it. Stdlib only.

It refuses before anything is tokenized or compiled, in the shape of the API that was called. The gateway bounds the
body.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

from aisandbox.instance.serve.request_stream import kept_alive
from aisandbox.instance.serve.request_turns import MAX_BYTES, Busy, Client, Gone, Turns

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_DEPTH = 64
MAX_SEQUENCES = 64
"""Answers that one request may ask for: prompts times `n`."""
MAX_LIST = {"stop": 32, "stop_token_ids": 256, "bad_words": 256, "logit_bias": 1024, "tools": 256, "choice": 1024}
MAX_TEXT = {"regex": 4096, "pattern": 4096, "guided_regex": 4096, "grammar": 65_536, "guided_grammar": 65_536}
MAX_NAME = 256
NAMES = ("model", "previous_response_id", "request_id", "user", "safety_identifier", "prompt_cache_key", "cache_salt")
"""Names and ids of a request, which errors repeat, in the answer and in the journal."""
NOTHING_KEPT = (
    "No responses are kept here, so previous_response_id leads nowhere. Send the conversation's earlier items again, "
    "in input: those of each response's output, and your own."
)
MAX_INPUTS = 2048
"""Items of `input`: texts to embed, as OpenAI takes, or of a conversation. Token ids are counted as characters are."""
MAX_TOP_LOGPROBS = 20
JSON_TEXTS = frozenset({"arguments", "json", "guided_json"})
"""Fields whose text is JSON, which vLLM parses: calls of tools, and schemas."""
MEDIA = "media"
CONVERSATION = ("messages", "input")
MEDIA_KEYS = frozenset({"url", "image_url", "file_data", "data"})
"""Where parts of a conversation hold pictures and sound, which no tokenizer reads."""
MIN_CHARACTERS, CHARACTERS_PER_TOKEN = 1 << 18, 16
"""Characters and numbers of a whole request: so many for each token of the context, and never fewer than the former."""
SMALL_BYTES = 1 << 18
"""A larger body is read beside the event loop."""


MESSAGES = "/v1/messages"
NAMED_EVENTS = (MESSAGES, "/v1/responses")
"""Routes whose streams name their events."""


class Asked(NamedTuple):
    """What a request asks for."""

    answers: int
    stream: bool


class TooMuch(ValueError):
    """A request over a limit, or for what is not kept.

    `args`: message, name of the parameter or None, OpenAI's code for the error.
    """


class RequestLimits:
    """The middleware, by its name on vLLM's command line."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        messages = _is_below(scope, MESSAGES)
        with self.turns.request(_client(scope)) as client:
            taken = 0
            try:
                body = bytearray()
                more = True
                while more:
                    piece = await receive()
                    if piece["type"] != "http.request":
                        raise Gone
                    part = piece.get("body", b"")
                    taken += len(part)
                    client.take(len(part))
                    body += part
                    more = piece.get("more_body", False)
                await self._answer(scope, receive, send, client, bytes(body))
            except TooMuch as refusal:
                message, parameter, code = refusal.args
                await _refuse(send, messages, 400, message, parameter, code)
            except Busy:
                message = f"Your open requests hold more than {MAX_BYTES >> 20} MiB. Try again when some have ended."
                await _refuse(send, messages, 429, message, None, "too_many_requests")
            except Gone:
                return
            finally:
                client.bytes -= taken

    async def _answer(self, scope: Scope, receive: Receive, send: Send, client: Client, body: bytes) -> None:
        settings = scope["app"].state.vllm_config
        limit = characters(settings.model_config.max_model_len)
        asked = await asyncio.to_thread(check, body, limit) if len(body) > SMALL_BYTES else check(body, limit)
        first = True
        # After the body, nothing comes but word that the client has gone.
        gone = asyncio.ensure_future(receive())

        async def replay() -> MutableMapping[str, Any]:
            nonlocal first
            if not first:
                return await asyncio.shield(gone)
            first = False
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            named = any(_is_below(scope, route) for route in NAMED_EVENTS)
            async with (
                kept_alive(send, asked.stream, named) as kept,
                client.turn(asked.answers, share(settings.scheduler_config.max_num_seqs), gone),
            ):
                await self.app(scope, replay, kept)
        finally:
            gone.cancel()


def _is_below(scope: Scope, route: str) -> bool:
    path: str = scope.get("path", "")
    return path == route or path.startswith(f"{route}/")


def _client(scope: Scope) -> str:
    """The address that the gateway names; whoever comes without it, as the chat page does, is one client."""
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"), "")


def share(most_sequences: int) -> int:
    """Answers that are made for one client at a time, of all that the engine makes at a time."""
    return max(1, most_sequences * 3 // 4)


def characters(context: int) -> int:
    """Most characters of a request to a model with such a context."""
    return max(MIN_CHARACTERS, CHARACTERS_PER_TOKEN * context)


def check(body: bytes, most_characters: int) -> Asked:
    """Look at a request. What is no JSON object is left to vLLM, which says what is wrong.

    Raises:
        TooMuch: it is over a limit.
    """
    request = _parse(body)
    if not isinstance(request, dict):
        return Asked(1, False)
    _check_names(request)
    if request.get("previous_response_id"):
        raise TooMuch(NOTHING_KEPT, "previous_response_id", "unsupported_parameter")
    sequences = _check_sequences(request)
    _check_inputs(request)
    for key in ("logprobs", "top_logprobs", "prompt_logprobs"):
        if _number(request, key) > MAX_TOP_LOGPROBS:
            raise TooMuch(f"{key} is more than {MAX_TOP_LOGPROBS}.", key, "integer_above_max_value")
    room = most_characters
    for name, value in _values(request):
        if isinstance(value, str):
            if len(value) > MAX_TEXT.get(name, len(value)):
                most = MAX_TEXT[name]
                raise TooMuch(f"{name} has {len(value)} characters; at most {most}.", name, "string_above_max_length")
            room -= 0 if name == MEDIA else len(value)
        elif isinstance(value, list | dict):
            if len(value) > MAX_LIST.get(name, len(value)):
                most = MAX_LIST[name]
                raise TooMuch(f"{name} has {len(value)} items; at most {most}.", name, "array_above_max_length")
            room -= len(value)
        # Names of fields are read, too, as those of a tool's parameters.
        room -= len(name)
        if room < 0:
            message = f"The request has more than {most_characters} characters, which is more than the model can read."
            raise TooMuch(message, None, "context_length_exceeded")
    return Asked(sequences, request.get("stream") is True)


def _parse(text: str | bytes) -> Any:
    """The JSON in the text; None if it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        return None


def _too_deep() -> TooMuch:
    return TooMuch(f"The JSON is nested more than {MAX_DEPTH} deep.", None, "invalid_value")


def _check_names(request: dict[str, Any]) -> None:
    for name in NAMES:
        value = request.get(name)
        if isinstance(value, str) and len(value) > MAX_NAME:
            message = f"{name} has {len(value)} characters; at most {MAX_NAME}."
            raise TooMuch(message, name, "string_above_max_length")


def _check_inputs(request: dict[str, Any]) -> None:
    inputs = request.get("input")
    if isinstance(inputs, list) and len(inputs) > MAX_INPUTS and not isinstance(inputs[0], int):
        message = f"input has {len(inputs)} items; at most {MAX_INPUTS}."
        raise TooMuch(message, "input", "array_above_max_length")


def _check_sequences(request: dict[str, Any]) -> int:
    prompt = request.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
    prompts = len(prompt) if several and isinstance(prompt, list) else 1
    wanted = max(_number(request, key) for key in ("n", "best_of")) or 1
    if prompts * wanted > MAX_SEQUENCES:
        asked = f"{prompts} prompts with {wanted} answers each" if prompts > 1 else f"{wanted} answers"
        message = f"The request asks for {asked}; at most {MAX_SEQUENCES} answers in all."
        raise TooMuch(message, "prompt" if wanted == 1 else "n", "integer_above_max_value")
    return max(1, int(prompts * wanted))


def _number(request: dict[str, Any], key: str) -> float:
    """The number as vLLM reads it, which takes "1000" and 1000.0 for whole ones; 0 for what is none."""
    value = request.get(key)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0
    return value if isinstance(value, int | float) and value > 0 else 0


def _values(request: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value in the request, with the key that it stands under, or MEDIA; items of a list have no key."""
    waiting = [(root, value, 1, root in CONVERSATION) for root, value in request.items()]
    while waiting:
        name, value, depth, said = waiting.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        yield MEDIA if said and name in MEDIA_KEYS and isinstance(value, str) else name, value
        if isinstance(value, dict):
            waiting += ((key, inner, depth + 1, said) for key, inner in value.items())
        elif isinstance(value, list):
            # Numbers are counted with their list.
            waiting += (("", inner, depth + 1, said) for inner in value if isinstance(inner, str | list | dict))
        elif name in JSON_TEXTS and isinstance(value, str):
            waiting.append(("", _parse(value), depth + 1, said))


async def _refuse(send: Send, messages: bool, status: int, message: str, parameter: str | None, code: str) -> None:
    """Refuse in the shape of OpenAI's errors, or of Anthropic's to a call of its `messages`."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error: dict[str, Any] = {"message": message, "type": kind}
    told = {"type": "error", "error": error} if messages else {"error": error | {"param": parameter, "code": code}}
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"retry-after", b"5")] if status == 429 else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
