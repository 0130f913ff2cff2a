"""The sandbox in the chat page: chosen for every visitor, used by the model, seen by people."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.gateway.installation import OpenWebUI
from tests.support import chromium


def test_the_model_runs_a_command_with_nothing_to_configure(page: Page, chat: OpenWebUI) -> None:
    chat.vllm.command = "echo $((6 * 7)) > answer.txt; cat answer.txt"
    try:
        chromium.open_chat(page, chat.gateway.url("chat"), sandbox=True)
        chromium.send(page, "What is six times seven?")
        expect(page.get_by_text(re.compile("It said: .*42"))).to_be_visible()
        page.screenshot(path=chat.gateway.folder / "sandbox-tool.png")
    finally:
        chat.vllm.command = None
    offered = {tool["function"]["name"] for tool in chat.vllm.chats()[-1]["tools"]}
    assert {"run_command", "run_code", "read_file", "write_file", "open_page"} <= offered


def test_people_see_its_files_and_a_terminal(page: Page, chat: OpenWebUI) -> None:
    chromium.open_chat(page, chat.gateway.url("chat"), sandbox=True)
    page.get_by_role("button", name="Controls").click()
    page.get_by_role("button", name="Terminal", exact=True).click()
    screen = page.locator(".xterm")
    expect(screen).to_be_visible()
    # What is typed before the prompt is there reaches nobody.
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile("[$#] "))
    screen.click()
    page.keyboard.type("echo $((40 + 2)) > from-terminal.txt; cat from-terminal.txt\n")
    expect(page.locator(".xterm-rows")).to_contain_text("42")
    page.get_by_role("button", name="Refresh").first.click()
    expect(page.get_by_text("from-terminal.txt").first).to_be_visible()
    expect(page.get_by_text("request failed")).to_have_count(0)
    page.screenshot(path=chat.gateway.folder / "sandbox-panel.png")
