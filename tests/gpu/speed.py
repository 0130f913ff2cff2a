"""How fast a served model writes, by OpenAI's own client: tokens a second of several streams at once."""

from __future__ import annotations

import asyncio
import time
from itertools import cycle, islice

import openai

from aisandbox import manifest

PROMPTS = manifest.REPOSITORY / "aisandbox" / "guide" / "corpus" / "general.txt"
"""Questions of every kind: real ones, since speculation gains on what repeats itself."""
WARM_UP_TOKENS = 8


def measure(url: str, model: str, streams: int, tokens: int, seconds: float) -> float:
    """Tokens a second of all streams together; each writes so many tokens, the first of them included.

    Raises:
        TimeoutError: it takes longer than `seconds`.
        openai.OpenAIError: a request fails.
    """
    try:
        return asyncio.run(asyncio.wait_for(_measure(url, model, streams, tokens), seconds))
    except TimeoutError as error:
        raise TimeoutError(f"{streams} answers at once took longer than {seconds:.0f} s") from error


async def _measure(url: str, model: str, streams: int, tokens: int) -> float:
    questions = list(islice(cycle(PROMPTS.read_text().splitlines()), streams))
    http = openai.DefaultAsyncHttpxClient(trust_env=False)  # no proxy stands between us and our own server
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as client:
        # What so many at once need for the first time is made before.
        await asyncio.gather(*(_write(client, model, question, WARM_UP_TOKENS) for question in questions))
        began = time.monotonic()
        written = await asyncio.gather(*(_write(client, model, question, tokens) for question in questions))
        return sum(written) / (time.monotonic() - began)


async def _write(client: openai.AsyncOpenAI, model: str, question: str, tokens: int) -> int:
    """Have one answer of exactly so many tokens streamed; returns how many came."""
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=tokens,
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    written = 0
    async for event in stream:
        written = event.usage.completion_tokens if event.usage else written
    return written
