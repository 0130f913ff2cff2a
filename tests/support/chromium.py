"""Debian's Chromium without a window, and what a person does with it on the chat page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

PROGRAM = Path(__file__).parent / "bin" / "chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
POLICY = "Content Security Policy"
"""In every message of Chromium about it."""
PATIENCE = 60_000
"""Milliseconds; the machine may be busy."""


@contextmanager
def running(*flags: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=PROGRAM, args=[*QUIET, *flags])


@contextmanager
def new_page(browser: Browser, refused: list[str] | None = None) -> Iterator[Page]:
    """A page of a browser that has seen nothing yet.

    Args:
        refused: takes what the page's Content-Security-Policy refuses.
    """
    takes = [] if refused is None else refused
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.on("console", lambda message: takes.append(message.text) if POLICY in message.text else None)
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield context.new_page()
    context.close()


def open_chat(page: Page, url: str, *, sandbox: bool = False) -> None:
    """Open a new chat; with `sandbox`, wait until it is chosen: the page asks for it after one can type already."""
    page.goto(url)
    expect(page.locator("#chat-input")).to_be_visible()
    if sandbox:
        expect(page.get_by_role("button", name="Sandbox", exact=True)).to_be_visible()


def send(page: Page, text: str) -> None:
    """Send a message in a new chat."""
    page.locator("#chat-input").click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/c/"))
