"""The sandbox of a booted machine: through the tunnel that a person would open, and from the chat page."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from aisandbox.builder.machine import Machine
from aisandbox.manifest import REPOSITORY
from tests.support import chromium, scenario
from tests.support.machines import MANIFEST, url
from tests.support.sandbox import free_port


@pytest.fixture(scope="module")
def tunnel(machine: Machine) -> Iterator[str]:
    """Address of the sandbox at this end of the tunnel."""
    port = free_port()
    command = ["make", "tunnel", f"NAME={machine.name}", f"PORT={port}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        address = f"http://localhost:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(10)


def test_it_cannot_be_reached_from_outside(machine: Machine) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(url(machine, "sandbox", "/health"), timeout=3)


@pytest.mark.timeout(900)
def test_the_success_criteria(tunnel: str) -> None:
    with httpx.Client(base_url=tunnel, timeout=60) as client:
        scenario.run(client, workspace="/workspace", root=str(MANIFEST.paths.data / "sandbox"))


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium.running() as browser, chromium.new_page(browser) as page:
        yield page


def test_the_guide_runs_a_command_from_the_chat(page: Page, machine: Machine) -> None:
    """With nothing to configure: the model calls the tool, the sandbox runs the command, the page shows both."""
    chromium.open_chat(page, url(machine, "chat", "/"), sandbox=True)
    chromium.send(page, "run uname -a")
    kernel = machine.run("uname -r").stdout.strip()
    expect(page.get_by_text(kernel).first).to_be_visible()
    page.get_by_role("button", name="View Result from run_command").click()
    expect(page.get_by_text('"exit_code": 0').first).to_be_visible()
    page.screenshot(path=REPOSITORY / "build/log/chat-runs-a-command.png")


def test_the_guide_works_with_files_from_the_chat(page: Page, machine: Machine, tunnel: str) -> None:
    """Several requests in one chat, answered from what the tools return."""
    notes = {"file": "/workspace/notes.txt", "content": "Mara keeps 17 lanterns\n"}
    httpx.post(f"{tunnel}/v1/file/write", json=notes).raise_for_status()
    chromium.open_chat(page, url(machine, "chat", "/"), sandbox=True)
    chromium.send(page, "what is in notes.txt")
    expect(page.get_by_text("Mara keeps 17 lanterns").first).to_be_visible()
    chromium.send(page, "list the files in the workspace")
    page.get_by_role("button", name="View Result from list_files").click()
    expect(page.get_by_text("notes.txt").last).to_be_visible()


def test_the_dashboard_shows_the_desktop(page: Page, tunnel: str) -> None:
    page.goto(tunnel)
    screen = page.frame_locator("iframe").first.locator("canvas").first
    expect(screen).to_be_visible()
    page.screenshot(path=REPOSITORY / "build/log/dashboard.png")
