"""The chat page in a browser: real Open WebUI behind the gateway, and a model server that streams a fixed answer."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.gateway.installation import OpenWebUI
from tests.gateway.upstream import ANSWER
from tests.support import chromium
from tests.support.chromium import send
from tests.support.documents import pdf

PDF_LINE = "The harbour of Kappel opens at dawn."


def open_chat(page: Page, chat: OpenWebUI, path: str = "/", *, sandbox: bool = False) -> None:
    chromium.open_chat(page, chat.gateway.url("chat", path), sandbox=sandbox)


def test_a_message_and_its_answer(page: Page, chat: OpenWebUI) -> None:
    open_chat(page, chat)
    send(page, "Who are you?")
    # It streams: the beginning is on the page before the end exists.
    expect(page.get_by_text("Hello from")).to_be_visible()
    expect(page.get_by_text(ANSWER)).to_be_visible()
    page.screenshot(path=chat.gateway.folder / "chat.png")
    page.reload()
    expect(page.get_by_text(ANSWER)).to_be_visible()


def test_the_model_gets_the_message_the_sandbox_and_nothing_else(page: Page, chat: OpenWebUI) -> None:
    open_chat(page, chat, sandbox=True)
    before = len(chat.vllm.chats())
    send(page, "What is the capital of France?")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    (asked,) = chat.vllm.chats()[before:]
    assert asked.keys() == {"model", "stream", "messages", "tools"}
    system, message = asked["messages"]
    assert message == {"role": "user", "content": "What is the capital of France?"}
    assert system["role"] == "system" and system["content"].startswith("You have a sandbox")


def test_history_outlives_a_restart_and_can_be_searched(page: Page, chat: OpenWebUI) -> None:
    open_chat(page, chat)
    send(page, "Remember the word marmalade")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    place = page.url
    chat.stop()
    chat.start()
    page.goto(place)
    expect(page.get_by_text(ANSWER)).to_be_visible()
    page.get_by_role("button", name="Search").first.click()
    page.keyboard.type("marmalade")
    expect(page.get_by_role("dialog").get_by_text("marmalade").first).to_be_visible()


@pytest.mark.parametrize(
    ("name", "kind", "content", "text"),
    [
        ("note.txt", "text/plain", b"The lighthouse keeper is called Ottilie.", "Ottilie"),
        ("paper.pdf", "application/pdf", pdf(PDF_LINE), PDF_LINE),
    ],
)
def test_documents_reach_the_model_whole(
    page: Page, chat: OpenWebUI, name: str, kind: str, content: bytes, text: str
) -> None:
    open_chat(page, chat)
    page.locator("input[type=file]").first.set_input_files({"name": name, "mimeType": kind, "buffer": content})
    expect(page.get_by_text(name)).to_be_visible()
    # The spinner of a file gives way to its size.
    expect(page.get_by_text(re.compile(r"\d B"))).to_be_visible()
    send(page, "What does the document say?")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    assert text in json.dumps(chat.vllm.chats()[-1])


def test_an_empty_chat_leads_to_what_programs_are_told(page: Page, chat: OpenWebUI) -> None:
    open_chat(page, chat)
    page.get_by_role("link", name="Use this model from your own programs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Use AI Sandbox from your own programs")


def test_settings_open(page: Page, chat: OpenWebUI) -> None:
    open_chat(page, chat)
    page.get_by_role("button", name="User menu").first.click()
    page.get_by_role("menuitem", name="Settings").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.screenshot(path=chat.gateway.folder / "settings.png")


def test_progress_page_gives_way_by_itself(page: Page, chat: OpenWebUI) -> None:
    flag = chat.gateway.www / "ready"
    flag.unlink()
    page.goto(chat.gateway.url("chat"))
    expect(page.get_by_role("link", name="Go to the chat anyway")).to_be_visible()
    flag.touch()
    expect(page.locator("#chat-input")).to_be_visible()


def test_progress_page_lets_people_through(page: Page, chat: OpenWebUI) -> None:
    flag = chat.gateway.www / "ready"
    flag.unlink()
    try:
        page.goto(chat.gateway.url("chat"))
        page.get_by_role("link", name="Go to the chat anyway").click()
        expect(page.locator("#chat-input")).to_be_visible()
    finally:
        flag.touch()


def test_everything_stays_on_this_machine(chat: OpenWebUI) -> None:
    """After all of the above: connections to model server and sandbox, and no others."""
    assert chat.peers() == chat.neighbours
