"""Fixtures: what the guide knows, and the official client of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from aisandbox.builder.machine import Machine
from aisandbox.guide.corpus import Entry, load_corpus
from aisandbox.manifest import REPOSITORY
from sandbox_api.compat.open_webui.router import document
from tests.support import examination
from tests.support.machines import url


@pytest.fixture(scope="session")
def corpus() -> dict[str, Entry]:
    """What the embedded model has learned, by the entries' names."""
    return {entry.id: entry for entry in load_corpus(REPOSITORY / "marketplace.yaml")}


@pytest.fixture(scope="session")
def known(corpus: dict[str, Entry]) -> Entry:
    """A question whose answer has a few sentences."""
    return corpus["who"]


@pytest.fixture(scope="session")
def tools() -> list[dict[str, Any]]:
    """The sandbox's tools as Open WebUI offers them to the model."""
    return examination.offered(document())


@pytest.fixture(scope="module")
def client(machine: Machine) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url(machine, "api", "/v1"), api_key="none", max_retries=0, timeout=60) as client:
        yield client
