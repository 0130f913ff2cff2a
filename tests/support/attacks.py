"""Clients that do their worst through the public ports: `python -m tests.support.attacks NAME ADDRESS SECONDS`.

A program of its own, so that its work takes no time from whoever measures beside it. It says when it begins, and at
the end how many requests were answered, by status, as JSON; 0 stands for connections that were cut off or refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from tests.support.machines import MANIFEST

MODEL = MANIFEST.embedded_model.id
CHAT, API = MANIFEST.ports["chat"].port, MANIFEST.ports["api"].port
QUESTION = [{"role": "user", "content": "Tell me a long story about everything that you know."}]
STEP_S = 0.5
"""How long attackers that only hold something wait between two looks."""


class Attacker:
    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: Counter[int] = Counter()

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address, port)

    async def send(self, port: int, path: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
        """One request; what comes of it is counted, and its answer returned without the head."""
        writer: asyncio.StreamWriter | None = None
        answer = b""
        try:
            reader, writer = await self.connect(port)
            more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            head = (
                f"POST {path} HTTP/1.1\r\nHost: {self.address}:{port}\r\nContent-Type: {kind}\r\nConnection: close\r\n"
            )
            writer.write(f"{head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.read()
        except OSError:
            pass
        finally:
            if writer:
                writer.close()
        status = answer[9:12]
        self.answers[int(status) if status.isdigit() else 0] += 1
        return answer.partition(b"\r\n\r\n")[2]

    async def ask(self, **request: Any) -> None:
        await self.send(
            API, "/v1/chat/completions", json.dumps({"model": MODEL, "messages": QUESTION, **request}).encode()
        )

    async def again(self, work: Callable[[], Awaitable[object]], times: int = 4) -> None:
        """Do it again and again, so many times at once."""

        async def one() -> None:
            while True:
                await work()

        await asyncio.gather(*(one() for _ in range(times)))

    async def hold(self, port: int, first: bytes, then: bytes, times: int) -> None:
        """Keep so many connections busy: each begins in one way, and goes on in drops."""

        async def one() -> None:
            while True:
                with suppress(OSError):
                    reader, writer = await self.connect(port)
                    writer.write(first)
                    reading = asyncio.ensure_future(reader.read())
                    while not reading.done():
                        await asyncio.wait({reading}, timeout=STEP_S)
                        writer.write(then)
                    status = reading.result()[9:12]
                    self.answers[int(status) if status.isdigit() else 0] += 1
                    writer.close()
                await asyncio.sleep(STEP_S)

        await asyncio.gather(*(one() for _ in range(times)))

    # The table

    async def silence(self) -> None:
        """Connections that never say anything, to both ports."""
        await asyncio.gather(self.hold(API, b"", b"", 800), self.hold(CHAT, b"", b"", 800))

    async def slow_bodies(self) -> None:
        head = "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{{"
        chat = head.format("/api/chat/completions").replace("Host: x", f"Host: {self.address}:{CHAT}")
        api = head.format("/v1/chat/completions").replace("Host: x", f"Host: {self.address}:{API}")
        await asyncio.gather(self.hold(API, api.encode(), b" ", 400), self.hold(CHAT, chat.encode(), b" ", 400))

    async def huge_bodies(self) -> None:
        prompt = json.dumps({"model": MODEL, "prompt": "word " * 6_000_000, "truncate_prompt_tokens": 5}).encode()
        account = json.dumps({"email": "a" * 50_000_000, "password": ""}).encode()
        await asyncio.gather(
            self.again(lambda: self.send(API, "/v1/completions", prompt), 2),
            self.again(lambda: self.send(CHAT, "/api/v1/auths/signin", account), 2),
        )

    async def many_answers(self) -> None:
        await self.again(lambda: self.ask(n=64, max_tokens=200, ignore_eos=True), 1)

    async def too_many_answers(self) -> None:
        await self.again(lambda: self.ask(n=16_384))

    async def deep_json(self) -> None:
        body = b'{"model":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
        await self.again(lambda: self.send(API, "/v1/chat/completions", body))

    async def long_prompts(self) -> None:
        await self.again(lambda: self.ask(messages=[{"role": "user", "content": "word " * 1500}], max_tokens=1), 2)

    async def slow_expressions(self) -> None:
        await self.again(lambda: self.ask(structured_outputs={"regex": "(.*)*" * 60}, max_tokens=50))

    async def long_names(self) -> None:
        await self.again(lambda: self.ask(model="m" * 3_000_000))

    async def many_requests(self) -> None:
        await self.again(lambda: self.ask(max_tokens=100, stream=True), 900)

    async def passwords(self) -> None:
        body = json.dumps({"email": "administrator@aisandbox.invalid", "password": "wrong"}).encode()
        await self.again(lambda: self.send(CHAT, "/api/v1/auths/signin", body), 20)

    async def uploads(self) -> None:
        """Documents, by somebody on the chat page."""
        signed = json.loads(await self.send(CHAT, "/api/v1/auths/signin", b'{"email": "", "password": ""}'))
        edge = "x" * 20
        about = 'Content-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain'
        part = f"--{edge}\r\n{about}\r\n\r\n"
        body = part.encode() + b"word " * 1_000_000 + f"\r\n--{edge}--\r\n".encode()
        kind, token = f"multipart/form-data; boundary={edge}", f"Bearer {signed['token']}"
        await self.again(lambda: self.send(CHAT, "/api/v1/files/?process=false", body, kind, Authorization=token), 2)


ATTACKS = [name for name, value in vars(Attacker).items() if not name.startswith("_")]
ATTACKS = ATTACKS[ATTACKS.index("silence") :]


async def attack(name: str, address: str, seconds: float) -> Counter[int]:
    attacker = Attacker(address)
    with suppress(TimeoutError):
        await asyncio.wait_for(getattr(attacker, name)(), seconds)
    return attacker.answers


def main() -> None:
    name, address, seconds = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
    # An attacker has a computer of its own: here, the machine goes first.
    os.nice(19)
    print("attacking", flush=True)
    print(json.dumps(asyncio.run(attack(name, address, float(seconds)))))


if __name__ == "__main__":
    main()
