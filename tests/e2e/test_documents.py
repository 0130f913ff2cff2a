"""Documents, embeddings and speech on a booted machine: a person at the chat page, and official clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from playwright.sync_api import Page, expect

from aisandbox.builder.machine import Machine
from aisandbox.manifest import REPOSITORY
from tests.support import auxiliary, chromium
from tests.support.documents import minutes
from tests.support.machines import MANIFEST, output, url
from tests.support.office import SENTENCE

PAGES = 100
EMBEDDING, SPEECH = (origin.id for _, origin in MANIFEST.auxiliary_models)


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium.running() as browser, chromium.new_page(browser) as page:
        yield page


def test_the_auxiliary_service_needs_little_before_it_is_used(machine: Machine) -> None:
    pid = output(machine, "systemctl show auxiliary --property=MainPID --value")
    resident = int(output(machine, f"grep -oP '(?<=VmRSS:).*(?= kB)' /proc/{pid}/status")) / 1024
    print(f"the auxiliary service before it is used: {resident:.0f} MiB")
    assert resident < 150
    assert output(machine, f"pgrep --count --parent {pid} || true") == "0"


def test_a_long_document_is_answered_with_its_source(page: Page, machine: Machine) -> None:
    """In a chat in which the model has called a tool before."""
    chromium.open_chat(page, url(machine, "chat", "/"), sandbox=True)
    chromium.send(page, "run uname -a")
    expect(page.get_by_role("button", name="View Result from run_command")).to_be_visible()
    expect(page.get_by_text(output(machine, "uname -r")).first).to_be_visible()
    document = {"name": "minutes.pdf", "mimeType": "application/pdf", "buffer": minutes(PAGES, SENTENCE)}
    page.locator("input[type=file]").first.set_input_files(document)  # type: ignore[arg-type]
    expect(page.get_by_text(re.compile(r"\d KB"))).to_be_visible()
    chromium.send(page, "What is the lighthouse keeper of Kappel called?")
    # On a busy host it takes its time; tests/bench/bench_documents.py says how long on an idle one.
    expect(page.get_by_text(re.compile(r"\d Sources?"))).to_be_visible(timeout=400_000)
    expect(page.locator("#response-content-container").last).to_contain_text("Ottilie")
    page.screenshot(path=REPOSITORY / "build" / "chat.png")


def test_embeddings_and_transcripts_by_the_official_client(
    client: openai.OpenAI, machine: Machine, tmp_path: Path
) -> None:
    answer = client.embeddings.create(model=EMBEDDING, input=["One.", "Another."])
    assert [len(entry.embedding) for entry in answer.data] == [384, 384]
    with auxiliary.speech("What is the capital of France?", tmp_path / "spoken.ogg").open("rb") as file:
        heard = client.audio.transcriptions.create(model=SPEECH, file=file)
    assert "capital of France" in heard.text
    with pytest.raises(openai.NotFoundError, match=EMBEDDING):
        client.embeddings.create(model=MANIFEST.embedded_model.id, input="Hello")
