"""The page that shows what `aisandbox connect` prints: chosen, copied, and for the address that the visitor knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from playwright.sync_api import Browser, Page, expect

from aisandbox.instance import files
from aisandbox.instance.observe import clients
from aisandbox.instance.observe.clients import CLIENTS, NO_KEY, YOUR_KEY, Connection
from aisandbox.instance.places import Places
from tests.gateway.stack import Gateway
from tests.gateway.test_progress_page import CONTRAST, publish, state, watched
from tests.support import appliance

OWN = "http://10.0.0.5:8000"
PATH = "/aisandbox/connect.html"


def document(places: Places, server: str = OWN, key: str = YOUR_KEY) -> dict[str, Any]:
    """What the publisher would publish."""
    return clients.document(places, Connection("AI Sandbox", server, "acme/name", key, 40_960))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return appliance.make(tmp_path_factory.mktemp("appliance"))


@pytest.fixture
def told(gateway: Gateway, places: Places) -> Iterator[dict[str, str]]:
    """The published texts by the names of their clients."""
    published = document(places)
    files.write_json(gateway.www / "connect.json", published)
    yield {client["name"]: client["text"] for client in published["clients"]}
    (gateway.www / "connect.json").unlink(missing_ok=True)


def pasted(page: Page) -> str:
    """What is in the clipboard."""
    page.evaluate("document.body.append(document.createElement('textarea'))")
    page.locator("textarea").focus()
    page.keyboard.press("Control+V")
    return page.locator("textarea").input_value()


@pytest.mark.parametrize("secure", [True, False])
def test_a_program_is_chosen_and_its_text_copied(
    page: Page, gateway: Gateway, told: dict[str, str], secure: bool
) -> None:
    if not secure:  # a page by plain HTTP from another machine
        page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(gateway.url("chat", PATH))
    choice = page.get_by_role("combobox", name="Program")
    expect(choice.get_by_role("option")).to_have_text([client.label for client in CLIENTS.values()])
    choice.select_option("OpenCode")
    expect(page.get_by_role("region", name="Text for the program")).to_have_text(told["opencode"])
    expect(page.get_by_text("~/.config/opencode/opencode.json")).to_be_visible()
    expect(page.get_by_text("sudo aisandbox connect opencode", exact=True)).to_be_visible()
    expect(page.get_by_text(f"Replace {YOUR_KEY} with it")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert pasted(page) == told["opencode"]


def test_the_keyboard_is_enough_and_the_address_names_the_program(
    page: Page, gateway: Gateway, told: dict[str, str]
) -> None:
    page.goto(gateway.url("chat", f"{PATH}#openai"))
    text = page.locator("#text")
    expect(text).to_have_text(told["openai"])
    page.keyboard.press("Tab")
    expect(page.get_by_role("combobox", name="Program")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(text).to_have_text(told["openai-node"])
    assert page.url.endswith("#openai-node")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.keyboard.press("Tab")
    expect(text).to_be_focused()


def test_the_address_is_the_one_that_the_visitor_knows(
    page: Page, gateway: Gateway, told: dict[str, str], places: Places
) -> None:
    page.goto(gateway.url("chat", f"{PATH}#curl").replace("127.0.0.1", "127.0.0.2"))
    expect(page.locator("#text")).to_have_text(told["curl"].replace(OWN, "http://127.0.0.2:8000"))
    # A domain with HTTPS is the same for everyone.
    domain = document(places, "https://ai.example.com", NO_KEY)
    files.write_json(gateway.www / "connect.json", domain)
    expect(page.locator("#text")).to_contain_text("'https://ai.example.com/v1/chat/completions'")
    expect(page.locator("#key")).to_be_hidden()


def test_it_waits_for_the_model(page: Page, gateway: Gateway, places: Places) -> None:
    page.goto(gateway.url("chat", PATH))
    expect(page.get_by_text("The model is not ready yet.")).to_be_visible()
    expect(page.get_by_role("combobox")).to_have_count(0)
    files.write_json(gateway.www / "connect.json", document(places))
    expect(page.get_by_role("combobox")).to_be_visible()
    expect(page.get_by_text("The API serves acme/name.")).to_be_visible()
    (gateway.www / "connect.json").unlink()


def test_strangers_text_is_text(page: Page, gateway: Gateway, places: Places) -> None:
    evil = "<img src=x onerror=document.title='owned'>"
    published = document(places)
    published["model"] = published["clients"][0]["text"] = evil
    files.write_json(gateway.www / "connect.json", published)
    page.goto(gateway.url("chat", PATH))
    expect(page.locator("#text")).to_have_text(evil)
    assert page.locator("img").count() == 0
    (gateway.www / "connect.json").unlink()


def test_the_progress_page_leads_there_once_ready(page: Page, gateway: Gateway, told: dict[str, str]) -> None:
    publish(gateway, state())
    page.goto(gateway.url("chat", "/aisandbox/progress.html"))
    programs = page.get_by_role("region", name="Use it from your own programs")
    expect(page.get_by_text("118 MB/s")).to_be_visible()
    expect(programs).to_be_hidden()
    publish(gateway, state(76, state="ready", phases=[]))
    expect(programs.get_by_role("link")).to_have_text([client.label for client in CLIENTS.values()])
    programs.get_by_role("link", name="Claude Code").click()
    expect(page.locator("#text")).to_have_text(told["claude-code"])
    (gateway.www / "status.json").unlink()


def test_it_loads_nothing_from_elsewhere(browser: Browser, gateway: Gateway, told: dict[str, str]) -> None:
    with watched(browser) as seen:
        seen.page.goto(gateway.url("chat", PATH))
        expect(seen.page.locator("#text")).to_have_text(told["aider"])
    assert seen.complaints == seen.refusals == seen.asked_of_others(gateway) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(page: Page, gateway: Gateway, told: dict[str, str], scheme: str) -> None:
    """Contrast of all text by WCAG AA, and no sideways scrolling on a phone."""
    page.emulate_media(color_scheme=cast("Any", scheme))
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(gateway.url("chat", f"{PATH}#opencode"))
    expect(page.locator("#text")).to_have_text(told["opencode"])
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRAST) == []
    page.screenshot(path=gateway.folder / f"connect-{scheme}.png", full_page=True)
