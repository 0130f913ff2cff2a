"""What clients of the API need to be told, and the files that tell them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from aisandbox.instance.http_probe import ask
from aisandbox.instance.observe.status import HEALTH_TIMEOUT_S, Overview
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest

NO_KEY = "none"
"""Clients insist on a key, also where none is asked for."""
YOUR_KEY = "YOUR_KEY"
"""Stands for the key in the texts that everyone may read."""
ANSWER_S = 5.0
MOST_BYTES = 1 << 20
OUTPUT_PART, MOST_OUTPUT = 4, 8192
"""An answer may take a part (1 of 4) of the context: some clients ask for more than all of it unless told."""


@dataclass(frozen=True)
class Client:
    """A program that speaks to the API, and the template of what it is told."""

    label: str
    place: str
    """Where that belongs: a file of the client, or what to do with the text."""


CLIENTS = {
    "aider": Client("Aider", "~/.aider.conf.yml"),
    "anthropic": Client("anthropic, Python", "a program"),
    "claude-code": Client("Claude Code", "~/.claude/settings.json"),
    "cline": Client("Cline", "its settings"),
    "continue": Client("Continue", "~/.continue/config.yaml"),
    "curl": Client("curl", "a shell"),
    "langchain": Client("LangChain, Python (langchain-openai)", "a program"),
    "litellm": Client("LiteLLM's proxy", "config.yaml"),
    "llama-index": Client("LlamaIndex, Python (llama-index-llms-openai-like)", "a program"),
    "n8n": Client("n8n", "its credentials"),
    "openai": Client("openai, Python", "a program"),
    "openai-node": Client("openai, Node.js", "a program (.mjs)"),
    "opencode": Client("OpenCode", "~/.config/opencode/opencode.json"),
    "qwen-code": Client("Qwen Code", "~/.qwen/.env"),
    "zed": Client("Zed", "~/.config/zed/settings.json"),
}


class NotServingError(Exception):
    """The model server does not answer, so its limits are unknown."""


@dataclass(frozen=True)
class Connection:
    """What every client is told. Lengths are in tokens."""

    product: str
    server: str
    """The API's address; `api` is the same for OpenAI's clients, with /v1."""
    model: str
    key: str
    context: int

    @property
    def api(self) -> str:
        return f"{self.server}/v1"

    @property
    def output(self) -> int:
        """Most tokens of an answer."""
        return min(self.context // OUTPUT_PART, MOST_OUTPUT)


def connection(manifest: Manifest, overview: Overview, key: str | None, timeout_s: float = ANSWER_S) -> Connection:
    """How this instance is reached now, with the key if it asks for one.

    Raises:
        NotServingError: the model server does not answer.
    """
    answer = ask(manifest.ports["api_upstream"].port, "/v1/models", timeout_s, most=MOST_BYTES)
    if not answer.ok:
        raise NotServingError
    try:
        served = json.loads(answer.content)["data"][0]
        model, context = str(served["id"]), int(served["max_model_len"])
    except (ValueError, LookupError, TypeError):
        raise NotServingError from None
    (url,) = (endpoint.url for endpoint in overview.endpoints if endpoint.name == "api")
    return Connection(
        product=manifest.product.name,
        server=url.removesuffix("/v1"),
        model=model,
        key=key or NO_KEY,
        context=context,
    )


def public(places: Places, manifest: Manifest, overview: Overview) -> dict[str, Any]:
    """What every client is told, without the key: for the page that everyone may read.

    Raises:
        NotServingError: the model server does not answer.
    """
    key = YOUR_KEY if overview.access.api_key else None
    # The publisher has more to do than to wait for this.
    return document(places, connection(manifest, overview, key, HEALTH_TIMEOUT_S))


def document(places: Places, here: Connection) -> dict[str, Any]:
    """What the page reads: `key` is what stands for the key in the texts, empty where none is asked for."""
    return {
        "server": here.server,
        "model": here.model,
        "key": "" if here.key == NO_KEY else here.key,
        "clients": [
            {"name": name, "label": client.label, "place": client.place, "text": told(places, name, here)}
            for name, client in CLIENTS.items()
        ],
    }


def told(places: Places, name: str, connection: Connection) -> str:
    """What the client of that name is told."""
    from aisandbox.instance.run import rendering

    template = (places.templates / "connect" / f"{name}.j2").read_text(encoding="utf-8")
    facts = ("product", "server", "api", "model", "key", "context", "output")
    values = {fact: getattr(connection, fact) for fact in facts}
    return rendering.fill(template, values | {"sh": _quoted})


def _quoted(value: object) -> str:
    """A word of the shell, always in quotes: the page puts its visitor's address in, which may have brackets."""
    return "'" + str(value).replace("'", "'\"'\"'") + "'"
