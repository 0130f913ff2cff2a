"""Jupyter Lab under /jupyter: a person opens it and runs a cell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sandbox_api.entry.service import EntryService
from sandbox_api.settings import Settings
from tests.support import chromium
from tests.support.sandbox import Sandbox, running


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running(tmp_path_factory.mktemp("jupyter"), "jupyter") as started:
        deadline = time.monotonic() + 60
        while (answer := started.client.get("/jupyter/api")).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert time.monotonic() < deadline, (started.root / "jupyter.log").read_text()[-3000:]
            time.sleep(0.2)
        yield started


def test_redirects_lead_to_lab(jupyter: Sandbox) -> None:
    answer = jupyter.client.get("/jupyter", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.url.path == "/jupyter/lab"
    assert "JupyterLab" in answer.text


async def test_health(jupyter: Sandbox, tmp_path: Path) -> None:
    service = EntryService(Settings(jupyter_socket=Path(jupyter.variables["SANDBOX_JUPYTER_SOCKET"])))
    health = await service.jupyter_health()
    assert (health.status, health.address) == ("ready", "/jupyter/lab")
    assert health.version
    assert (await service.code_server_health()).status == "unavailable"
    assert "SANDBOX_CDP_URL" in (await service.cdp_health()).detail
    await service.stop()
    missing = EntryService(Settings(code_server_socket=tmp_path / "none", cdp_url="http://127.0.0.1:1"))
    assert (await missing.code_server_health()).status == "starting"
    assert (await missing.cdp_health()).status == "starting"
    missing._started -= 3600
    assert (await missing.code_server_health()).status == "failed"
    assert (await missing.cdp_health()).status == "failed"
    await missing.stop()


def test_a_person_runs_a_cell(jupyter: Sandbox) -> None:
    with chromium.running() as browser, chromium.new_page(browser) as page:
        page.goto(jupyter.url + "/jupyter")
        page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
        cell = page.locator(".jp-Notebook .jp-Cell").first
        expect(cell).to_be_visible()
        expect(page.locator("#jp-bottom-panel")).to_contain_text("| Idle")
        cell.locator(".cm-content").click()
        code = "import os; print(6 * 7, os.getcwd())"
        page.keyboard.type(code)
        expect(cell.locator(".cm-content")).to_have_text(code)
        page.keyboard.press("Shift+Enter")
        expect(page.locator(".jp-OutputArea-output").first).to_contain_text(f"42 {jupyter.workspace}")
        page.screenshot(path=jupyter.root / "jupyter.png")
