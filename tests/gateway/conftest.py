"""Fixtures: a gateway for each module, and one Open WebUI behind a gateway for the whole run."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.gateway.installation import NARROWED, OpenWebUI
from tests.gateway.stack import Gateway, running_gateway
from tests.gateway.upstream import Upstream
from tests.support import auxiliary, chromium
from tests.support.sandbox import running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
def ready(gateway: Gateway) -> Iterator[Path]:
    """The flag that the model serves."""
    flag = gateway.www / "ready"
    flag.touch()
    yield flag
    flag.unlink(missing_ok=True)


@pytest.fixture(scope="package")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenWebUI]:
    """Real Open WebUI behind its gateway, the real sandbox and auxiliary service, and a model server that is none.

    Without a login, as the visitors of an open chat meet it, and with the sandbox, as on a narrowed one.
    """
    key = secrets.token_hex()
    with (
        running_gateway(tmp_path_factory.mktemp("chat"), NARROWED) as gateway,
        running(tmp_path_factory.mktemp("sandbox"), port=str(gateway.port("sandbox")), auth="1", api_keys=key),
        Upstream(gateway.port("api_upstream")) as vllm,
        auxiliary.running(gateway.manifest),
        OpenWebUI(gateway, vllm, choice=NARROWED, sandbox_key=key) as open_webui,
    ):
        (gateway.www / "ready").touch()
        yield open_webui


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    refused: list[str] = []
    with chromium.new_page(browser, refused) as page:
        yield page
    assert refused == [], "the page needs what its policy refuses"
