"""A person, a browser and the chat page of a booted machine."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from playwright.sync_api import Page, expect

from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.guide.corpus import Entry
from tests.support import chromium, machines
from tests.support.machines import MANIFEST, url

WATCH_GROWTH = """answer => {
    window.growth = [];
    let shown = 0;
    new MutationObserver(() => {
        const text = document.body.innerText;
        const before = shown;
        while (shown < answer.length && text.includes(answer.slice(0, shown + 1))) shown++;
        if (shown > before) window.growth.push(shown);
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""Notes, at every change of the page, how much of the answer is on it."""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """One person's browser for the whole story."""
    with chromium.running() as browser, chromium.new_page(browser) as page:
        yield page


def test_a_question_is_answered_as_a_stream(page: Page, machine: Machine, known: Entry) -> None:
    messages: list[str | bytes] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda text: messages.append(text)))
    seen: list[list[int]] = []
    # The guide answers in a fraction of a second: a busy browser may show all of it at once.
    while not any(20 < length < len(known.answer) for growth in seen for length in growth):
        assert len(seen) < 5, seen
        messages.clear()
        chromium.open_chat(page, url(machine, "chat", "/"))
        page.evaluate(WATCH_GROWTH, known.answer)
        chromium.send(page, known.questions[0])
        expect(page.get_by_text(known.answer)).to_be_visible()
        assert len([message for message in messages if "response:completion" in str(message)]) > 10
        seen.append(page.evaluate("window.growth"))
        assert seen[-1][-1] == len(known.answer)


def test_the_api_says_the_same(client: openai.OpenAI, known: Entry) -> None:
    model = MANIFEST.embedded_model.id
    messages = [{"role": "user", "content": known.questions[0]}]
    answer = client.chat.completions.create(model=model, messages=messages, temperature=0)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == known.answer


def test_it_is_still_there_after_a_reload(page: Page, known: Entry) -> None:
    page.reload()
    expect(page.get_by_text(known.answer)).to_be_visible()


def test_it_is_still_there_after_a_power_cycle(page: Page, machine: Machine, image: Layer, known: Entry) -> None:
    place = page.url
    instance = machines.output(machine, "cat /var/lib/cloud/data/instance-id")
    machine.stop()
    machines.start(machine, image, narrowed=True)
    assert machines.output(machine, "cat /var/lib/cloud/data/instance-id") == instance
    assert url(machine, "chat") in place
    page.goto(place)
    expect(page.get_by_text(known.answer)).to_be_visible()
    page.goto(url(machine, "chat", "/"))
    page.get_by_role("button", name="Open Sidebar").click()
    history = page.get_by_role("navigation", name="Chat history")
    expect(history.get_by_text(known.questions[0]).first).to_be_visible()
