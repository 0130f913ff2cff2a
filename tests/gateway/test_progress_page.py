"""The progress page in a browser: what it tells, to whom, and how late."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from aisandbox.instance import files
from tests.gateway.stack import Gateway
from tests.gateway.upstream import Upstream
from tests.support import appliance, chromium

BEGAN = datetime(2026, 11, 22, 8, tzinfo=UTC)


@dataclass
class Watched:
    """A page, with what it asked for, what went wrong in it, and what its policy refused."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def asked_of_others(self, gateway: Gateway) -> list[str]:
        return [url for url in self.asked if not url.startswith((gateway.url("chat"), "data:"))]


@contextmanager
def watched(browser: Browser) -> Iterator[Watched]:
    refusals: list[str] = []
    with chromium.new_page(browser, refusals) as page:
        seen = Watched(page, refusals=refusals)
        page.on("request", lambda request: seen.asked.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        yield seen


def at(second: float) -> str:
    return (BEGAN + timedelta(seconds=second)).isoformat(timespec="milliseconds")


CONFIGURED = {
    "phase": "configure",
    "state": "done",
    "began": at(4.7),
    "since": at(5),
    "updated": at(5),
    "message": "Configured to serve it.",
}
FETCHING = {
    "phase": "model",
    "state": "running",
    "began": at(5),
    "since": at(5),
    "updated": at(74),
    "message": "Downloading Qwen/Qwen3-8B.",
    "bytes_done": 6_400_000_000,
    "bytes_total": 16_380_000_000,
    "bytes_per_second": 118_000_000,
    "eta_s": 84,
}
IMPORTING = {
    "phase": "engine",
    "state": "running",
    "began": at(5),
    "since": at(5),
    "updated": at(6),
    "message": "Waiting for the model",
}
FAILED = {
    "phase": "model",
    "state": "failed",
    "began": at(5),
    "since": at(10),
    "updated": at(10),
    "message": "There is no model Qwen/Qwen3-8C on the hub. Did you mean Qwen/Qwen3-8B?",
    "fix": "sudo aisandbox configure --model Qwen/Qwen3-8B",
}
SANDBOX = {
    "name": "sandbox",
    "label": "Sandbox",
    "url": "http://localhost:8080/",
    "ready": True,
    "tunnel": "ssh -L 8080:localhost:8080 debian@10.0.0.5",
}
ENDPOINTS = [
    {"name": "chat", "label": "Chat page (Open WebUI)", "url": "http://10.0.0.5:3000/", "ready": False, "tunnel": ""},
    {
        "name": "api",
        "label": "OpenAI-compatible API (vLLM)",
        "url": "http://10.0.0.5:8000/v1",
        "ready": False,
        "tunnel": "",
    },
    SANDBOX,
]
WARNING = {
    "text": "Chat page: open to everyone who can reach port 3000.",
    "fix": "sudo aisandbox configure --set chat_password=…",
}
SIZING = {
    "sentence": "8.0 B parameters x 2 bytes = 16 GB, fits one 24 GB GPU with 9 k tokens of context.",
    "rows": [["Weights", "16.4 GB"], ["KV cache", "1.3 GB"]],
}
LOG = [{"at": at(6), "service": "model", "text": "Looking up Qwen/Qwen3-8B."}]


def state(second: float = 75, **changes: Any) -> dict[str, Any]:
    """The published state of a machine that fetches its model, but for the changes."""
    usual = {
        "state": "starting",
        "started": at(0),
        "now": at(second),
        "phases": [CONFIGURED, FETCHING, IMPORTING],
        "endpoints": ENDPOINTS,
        "problems": [],
        "warnings": [WARNING],
        "sizing": SIZING,
        "log": LOG,
        "ssh": "ssh debian@10.0.0.5",
    }
    return {**usual, **changes}


def broken(second: float = 80) -> dict[str, Any]:
    wrong = {
        "option": "max_model_len",
        "value": "12",
        "reason": "is less than 256",
        "fix": "Choose 256 or more.",
        "source": "user-data",
    }
    failed = {"option": None, "value": None, "reason": FAILED["message"], "fix": FAILED["fix"], "source": None}
    phases = [CONFIGURED, FAILED, {"phase": "engine", "state": "waiting", "message": ""}]
    return state(second, state="failed", phases=phases, problems=[wrong, failed], warnings=[], sizing=None)


def publish(gateway: Gateway, published: dict[str, Any]) -> None:
    files.write(gateway.www / "status.json", json.dumps(published))


@pytest.fixture
def progress(page: Page, gateway: Gateway) -> Iterator[Page]:
    """The page of an instance that downloads its model."""
    publish(gateway, state())
    page.goto(gateway.url("chat"))
    yield page
    (gateway.www / "status.json").unlink(missing_ok=True)


def test_it_tells_how_far_it_is(progress: Page, gateway: Gateway) -> None:
    expect(progress.get_by_text("39 % · 6.4 GB of 16.4 GB · 118 MB/s · about 1 min 24 s left")).to_be_visible()
    expect(progress.get_by_role("progressbar", name="Fetch the model")).to_have_attribute("max", "16380000000")
    expect(progress.locator("#elapsed")).to_contain_text("since power-on")
    expect(progress.locator("#elapsed")).to_contain_text("1 min 1")
    expect(progress.get_by_text(SIZING["sentence"])).to_be_visible()  # type: ignore[arg-type]
    expect(progress.get_by_text("08:00:06 model: Looking up Qwen/Qwen3-8B.")).to_be_visible()
    expect(progress.get_by_role("link", name="Go to the chat anyway")).to_be_hidden()
    assert progress.title() == "39 % – AI Sandbox"


def test_who_hears_the_page_hears_every_tenth(progress: Page, gateway: Gateway) -> None:
    expect(progress.locator("#summary")).to_have_text("Fetch the model: 39 %.")
    heard = progress.locator("#heard")
    expect(heard).to_have_text("Fetch the model: 30 %.")
    expect(heard).to_have_role("status")
    publish(gateway, state(76, phases=[CONFIGURED, IMPORTING, {**FETCHING, "bytes_done": 9_000_000_000}]))
    expect(heard).to_have_text("Start the model: at work.")


def test_the_table_of_the_sizing_unfolds(progress: Page) -> None:
    expect(progress.get_by_role("rowheader", name="KV cache")).to_be_hidden()
    progress.get_by_text("How that was worked out").focus()
    progress.keyboard.press("Enter")
    expect(progress.get_by_role("rowheader", name="KV cache")).to_be_visible()


def test_it_names_every_address(progress: Page) -> None:
    addresses = progress.get_by_role("region", name="Addresses")
    for text in ("http://10.0.0.5:8000/v1", "ssh debian@10.0.0.5", str(SANDBOX["tunnel"])):
        expect(addresses.get_by_text(text, exact=True)).to_be_visible()
    expect(addresses.get_by_role("link", name="http://localhost:8080/")).to_be_visible()


def test_addresses_are_those_that_the_visitor_knows(page: Page, gateway: Gateway) -> None:
    publish(gateway, state())
    # Another name of this machine, as a public address is to an instance that knows only its private one.
    page.goto(gateway.url("chat").replace("127.0.0.1", "127.0.0.2"))
    addresses = page.get_by_role("region", name="Addresses")
    expect(addresses.get_by_text("http://127.0.0.2:8000/v1")).to_be_visible()
    expect(addresses.get_by_text("ssh debian@127.0.0.2", exact=True)).to_be_visible()
    expect(addresses.get_by_text("10.0.0.5")).to_have_count(0)


def test_security_notes_come_with_their_commands_and_go(progress: Page, gateway: Gateway) -> None:
    notes = progress.get_by_role("region", name="Security notes")
    expect(notes.get_by_text(WARNING["fix"])).to_be_visible()
    publish(gateway, state(76, warnings=[]))
    expect(notes).to_be_hidden()


def test_a_failure_says_what_to_do(progress: Page, gateway: Gateway) -> None:
    publish(gateway, broken())
    wrong = progress.get_by_role("region", name="What is wrong")
    expect(wrong.get_by_text("sudo aisandbox configure --model Qwen/Qwen3-8B", exact=True)).to_be_visible()
    expect(wrong.get_by_text("max_model_len “12” (user-data): is less than 256")).to_be_visible()
    expect(progress.get_by_role("heading", level=1)).to_have_text("AI Sandbox needs your help")
    expect(progress.locator("#summary")).to_have_text("Fetch the model: failed.")
    expect(progress.locator("#heard")).to_have_text("Fetch the model: failed.")
    assert progress.title() == "AI Sandbox needs your help"


def test_a_failure_with_something_to_serve_instead_is_told_all_the_same(progress: Page, gateway: Gateway) -> None:
    publish(gateway, {**broken(), "state": "starting"})
    expect(progress.get_by_role("region", name="What is wrong")).to_be_visible()
    expect(progress.get_by_role("heading", level=1)).to_have_text("AI Sandbox is starting")


def test_strangers_text_is_text(progress: Page, gateway: Gateway) -> None:
    evil = "<img src=x onerror=document.title='owned'><b>bold</b>"
    publish(
        gateway, state(76, phases=[{**FETCHING, "message": evil}], sizing={"sentence": evil, "rows": [[evil, evil]]})
    )
    expect(progress.get_by_text("onerror").first).to_be_visible()
    assert progress.locator("main b, main img").count() == 0


def test_it_loads_nothing_from_elsewhere(browser: Browser, gateway: Gateway) -> None:
    with watched(browser) as seen:
        page = seen.page
        publish(gateway, state())
        page.goto(gateway.url("chat"))
        expect(page.get_by_text("118 MB/s")).to_be_visible()
        assert seen.complaints == seen.refusals == seen.asked_of_others(gateway) == []
        # Nor could it: the page's own policy forbids it.
        fetched = "fetch('http://127.0.0.1:1/').then(() => '', (error) => document.location && error.name)"
        assert page.evaluate(fetched) == "TypeError"
        policy = page.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
        assert policy and "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert any("127.0.0.1:1" in refusal for refusal in seen.refusals)


def test_when_all_is_ready_it_says_so_and_how_long_each_phase_took(page: Page, gateway: Gateway) -> None:
    fetched = {**FETCHING, "state": "done", "since": at(214), "updated": at(214), "message": "It is here."}
    loaded = {**IMPORTING, "state": "done", "since": at(95), "updated": at(900), "message": "It serves."}
    publish(gateway, state(1000, state="ready", phases=[CONFIGURED, fetched, loaded]))
    with Upstream(gateway.port("chat_upstream")):
        files.write(gateway.www / "ready", "ready\n")
        page.goto(f"{gateway.url('chat').rstrip('/')}/aisandbox/progress.html")
        expect(page.locator("#summary")).to_have_text("Chat and API answer.")
        expect(page.get_by_role("heading", level=1)).to_have_text("AI Sandbox is ready")
        took = [page.locator(f"#took-{name}") for name in ("configure", "model", "engine")]
        for node, text in zip(took, ("< 1 s", "3 min 29 s", "1 min 30 s"), strict=True):
            expect(node).to_have_text(text)
        expect(page.get_by_role("link", name="Open the chat")).to_be_visible()
        expect(page.get_by_role("link", name="Go to the chat anyway")).to_be_hidden()
    (gateway.www / "ready").unlink()
    (gateway.www / "status.json").unlink()


def test_a_problem_begins_with_a_capital_letter(progress: Page, gateway: Gateway) -> None:
    clause = {"option": None, "value": None, "reason": "this image uses no GPU", "fix": "Deploy.", "source": None}
    publish(gateway, state(76, problems=[clause]))
    expect(progress.get_by_text("This image uses no GPU")).to_be_visible()


def test_what_is_selected_stays_selected(progress: Page, gateway: Gateway) -> None:
    command = progress.get_by_text(WARNING["fix"])
    command.click()
    chosen = "getSelection().toString()"
    assert progress.evaluate(chosen) == WARNING["fix"]
    publish(gateway, state(77, phases=[CONFIGURED, {**FETCHING, "bytes_done": 9_000_000_000}, IMPORTING]))
    expect(progress.get_by_text("9.0 GB of 16.4 GB")).to_be_visible()
    assert progress.evaluate(chosen) == WARNING["fix"]


def test_it_says_when_no_news_come(progress: Page, gateway: Gateway) -> None:
    expect(progress.get_by_text("118 MB/s")).to_be_visible()
    expect(progress.get_by_text("No news from the instance.")).to_be_visible()  # the file is not written any more
    expect(progress.locator("#stale-age")).to_contain_text("Nothing for")
    publish(gateway, state(90))
    expect(progress.get_by_text("No news from the instance.")).to_be_hidden()


def test_it_survives_a_lost_and_a_bad_connection(progress: Page, gateway: Gateway) -> None:
    expect(progress.get_by_text("118 MB/s")).to_be_visible()
    progress.context.set_offline(True)
    expect(progress.get_by_text("No news from the instance.")).to_be_visible()
    expect(progress.get_by_text("118 MB/s")).to_be_visible()
    progress.context.set_offline(False)
    publish(gateway, state(100))
    expect(progress.get_by_text("No news from the instance.")).to_be_hidden()

    def half(route: Route) -> None:
        route.fulfill(status=200, content_type="application/json", body='{"phases": [')

    progress.route("**/status.json", half)
    expect(progress.get_by_text("No news from the instance.")).to_be_visible()
    progress.unroute("**/status.json")
    publish(gateway, state(110))
    expect(progress.get_by_text("No news from the instance.")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("failed", [False, True])
def test_everybody_can_read_it(page: Page, gateway: Gateway, scheme: str, failed: bool) -> None:
    """Contrast of all text by WCAG AA, and no sideways scrolling on a phone."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    publish(gateway, broken() if failed else state())
    page.goto(gateway.url("chat"))
    expect(page.get_by_text("since power-on")).to_be_visible()
    expect(page.locator("#wrong" if failed else "#sizing")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate("document.getAnimations().length") == 0
    page.screenshot(path=gateway.folder / f"progress-{scheme}-{'failed' if failed else 'download'}.png", full_page=True)


CONTRAST = """() => {
    const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const node of document.querySelectorAll("main *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.checkVisibility()) continue;
        const [a, b] = [luminance(parse(getComputedStyle(node).color)), luminance(ground(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.textContent);
    }
    return poor;
}"""


def test_it_gives_way_to_the_chat_by_itself(progress: Page, gateway: Gateway) -> None:
    anyway = progress.get_by_role("link", name="Go to the chat anyway")
    expect(progress.get_by_text("118 MB/s")).to_be_visible()
    with Upstream(gateway.port("chat_upstream")):
        expect(anyway).to_be_visible()
        files.write(gateway.www / "ready", "ready\n")
        expect(anyway).to_be_hidden()
        expect(progress.get_by_text('"path"')).to_be_visible()
    (gateway.www / "ready").unlink()


def test_without_javascript_it_reloads_itself(gateway: Gateway) -> None:
    # By its text: Chromium under automation leaves the content of noscript out, whichever way scripts are switched off.
    head, _, body = httpx.get(gateway.url("chat"), headers={"Accept": "text/html"}).text.partition("<body>")
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in head
    assert "Without it, it reloads itself" in body


def test_it_is_never_2_seconds_behind(page: Page, gateway: Gateway, tmp_path: Path) -> None:
    """From a service's report, through the real publisher and the real gateway, to what stands on the page."""
    places = appliance.make(tmp_path)
    command = [sys.executable, "-m", "aisandbox.instance", "--root", str(tmp_path), "status-publish"]
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
    publisher = subprocess.Popen(command)
    kept = gateway.www.with_name("kept")
    gateway.www.rename(kept)
    gateway.www.symlink_to(places.published_status.parent)
    try:
        page.goto(gateway.url("chat"))
        expect(page.locator("#elapsed")).to_contain_text("since power-on")
        worst = 0.0
        for number in range(6):
            time.sleep(0.17 * number)  # so that it comes at another point of the polls each time
            message = f"News number {number}."
            files.write_json(places.status("model"), {"phase": "look-up", "state": "running", "message": message})
            began = time.monotonic()
            expect(page.get_by_text(message)).to_be_visible()
            worst = max(worst, time.monotonic() - began)
        print(f"worst delay: {worst:.2f} s")
        assert worst < 2
    finally:
        publisher.terminate()
        publisher.wait(10)
        gateway.www.unlink()
        kept.rename(gateway.www)
