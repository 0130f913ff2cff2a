"""The sandbox in the chat page: chosen for every visitor, used by the model, seen by people."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gateway.installation import OpenWebUI
from tests.support import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.running() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with chromium.new_page(browser) as page:
        yield page


def test_the_model_runs_a_command_with_nothing_to_configure(page: Page, chat: OpenWebUI) -> None:
    chat.vllm.command = "echo $((6 * 7)) > answer.txt; cat answer.txt"
    try:
        chromium.open_chat(page, chat.gateway.url("chat"))
        chromium.send(page, "What is six times seven?")
        expect(page.get_by_text(re.compile("It said: .*42"))).to_be_visible()
        page.screenshot(path=chat.gateway.folder / "sandbox-tool.png")
    finally:
        chat.vllm.command = None
    offered = {tool["function"]["name"] for tool in chat.vllm.chats()[-1]["tools"]}
    assert {"run_command", "run_code", "read_file", "write_file", "open_page"} <= offered


def test_people_see_its_files_and_a_terminal(page: Page, chat: OpenWebUI) -> None:
    chromium.open_chat(page, chat.gateway.url("chat"))
    page.screenshot(path=chat.gateway.folder / "sandbox-chat.png")
    print(page.locator("button").evaluate_all("all => all.map(b => b.ariaLabel || b.innerText)"))
