"""The container's pages as a person sees them: dashboard, VS Code, Jupyter and the desktop, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from aisandbox.builder.sandbox import Container
from aisandbox.manifest import REPOSITORY
from tests.support import chromium

PICTURES = REPOSITORY / "build" / "log"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium.running() as browser, chromium.new_page(browser) as page:
        yield page


def test_vs_code_shows_the_workspace_and_its_terminal_works(page: Page, container: Container) -> None:
    (container.workspace / "hello.py").write_text("print('hello from the workspace')\n")
    page.goto(f"{container.url}/code-server/?folder=/workspace")
    expect(page.locator(".monaco-workbench")).to_be_visible()
    page.get_by_role("treeitem", name="hello.py").dblclick()
    expect(page.locator(".view-lines").first).to_contain_text("hello from the workspace")
    page.keyboard.press("Control+`")
    terminal = page.locator(".xterm-helper-textarea")
    expect(terminal).to_be_attached()
    terminal.focus()
    page.keyboard.type("python3 hello.py > said.txt\n")
    said = container.workspace / "said.txt"
    for _ in range(200):
        if said.exists() and said.read_text():
            break
        page.wait_for_timeout(100)
    page.screenshot(path=PICTURES / "vs-code.png")
    assert said.read_text() == "hello from the workspace\n"


def test_jupyter_lab_opens(page: Page, container: Container) -> None:
    page.goto(f"{container.url}/jupyter")
    expect(page.locator(".jp-Launcher").first).to_be_visible()
    page.screenshot(path=PICTURES / "jupyter.png")


def test_the_dashboard_leads_everywhere(page: Page, container: Container) -> None:
    page.goto(container.url)
    expect(page.frame_locator("iframe").first.locator("canvas").first).to_be_visible()
    for name in ("Terminal", "Files", "Jupyter", "VS Code", "API", "Status"):
        page.get_by_role("tab", name=name).click()
    page.screenshot(path=PICTURES / "dashboard-status.png")
    expect(page.get_by_text("code-server").first).to_be_visible()
