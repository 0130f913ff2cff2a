"""Documents and dictation on the chat page: real Open WebUI and auxiliary service, and a model server that is none."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gateway.installation import OpenWebUI
from tests.gateway.test_visitor import sign_in
from tests.gateway.upstream import ANSWER, MODEL
from tests.support import auxiliary, chromium
from tests.support.appliance import MANIFEST
from tests.support.chromium import send
from tests.support.documents import pdf, picture_pdf
from tests.support.office import word_97

SPOKEN = "Please open the window and bring me a glass of water."
FILLER = "The council of the town met on this day and spoke at length of roads, bridges, taxes and the weather. "
FACTS = {12: "The lighthouse keeper of Kappel is called Ottilie.", 37: "The harbour of Kappel opens at dawn."}


@pytest.fixture(scope="module")
def visitor(chat: OpenWebUI) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {sign_in(chat.gateway)['token']}"}
    with httpx.Client(base_url=chat.gateway.url("chat"), headers=headers, timeout=120) as client:
        yield client


def report(pages: int, facts: dict[int, str]) -> bytes:
    """A PDF of pages full of words, with a fact on some of them."""
    return pdf(
        *(
            f"{facts.get(number, '')}\n" + "\n".join(f"Item {number}.{line}: {FILLER}" for line in range(30))
            for number in range(1, pages + 1)
        )
    )


def prompt(chat: OpenWebUI) -> str:
    """All that the model was last given to read."""
    return "\n".join(str(message["content"]) for message in chat.vllm.chats()[-1]["messages"])


def upload(visitor: httpx.Client, name: str, content: bytes) -> str:
    """The file's id, once it can be searched."""
    answer = visitor.post("/api/v1/files/", files={"file": (name, content)}, params={"process_in_background": "false"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def ask(visitor: httpx.Client, question: str, *files: dict[str, str]) -> dict[str, Any]:
    form = {"model": MODEL, "messages": [{"role": "user", "content": question}], "files": list(files)}
    answer = visitor.post("/api/chat/completions", json=form)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_what_belongs_to_the_question_reaches_the_model(page: Page, chat: OpenWebUI) -> None:
    """Not the document whole; and the page says where the answer comes from."""
    chromium.open_chat(page, chat.gateway.url("chat", "/"))
    document = {"name": "report.pdf", "mimeType": "application/pdf", "buffer": report(40, FACTS)}
    page.locator("input[type=file]").first.set_input_files(document)  # type: ignore[arg-type]
    expect(page.get_by_text(re.compile(r"\d KB"))).to_be_visible()
    send(page, "What is the lighthouse keeper called?")
    expect(page.get_by_text(ANSWER)).to_be_visible()
    read = prompt(chat)
    assert FACTS[12] in read and "name the number of each part" in read
    assert len(read) < 8000
    expect(page.get_by_text(re.compile(r"\d Sources?"))).to_be_visible()
    page.screenshot(path=chat.gateway.folder / "cited.png")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("scan.pdf", picture_pdf(), "text recognition"), ("old.doc", word_97(), "save it as .docx")],
    ids=["scan", "old"],
)
def test_a_visitor_reads_why_a_document_is_refused(
    page: Page, chat: OpenWebUI, name: str, content: bytes, told: str
) -> None:
    chromium.open_chat(page, chat.gateway.url("chat", "/"))
    file = {"name": name, "mimeType": "application/octet-stream", "buffer": content}
    page.locator("input[type=file]").first.set_input_files(file)  # type: ignore[arg-type]
    expect(page.get_by_text(told).first).to_be_visible()
    page.screenshot(path=chat.gateway.folder / f"{name}.png")


def test_several_documents_and_a_knowledge_collection(visitor: httpx.Client, chat: OpenWebUI) -> None:
    one = upload(visitor, "one.pdf", report(3, {2: FACTS[12]}))
    other = upload(visitor, "other.txt", f"{FILLER * 40}\n\n{FACTS[37]}".encode())
    ask(visitor, "When does the harbour open?", {"type": "file", "id": one}, {"type": "file", "id": other})
    assert FACTS[37] in prompt(chat)
    answer = visitor.post("/api/v1/knowledge/create", json={"name": "Kappel", "description": "The town"})
    assert answer.status_code == 200, answer.text
    knowledge = answer.json()["id"]
    for file in (one, other):
        answer = visitor.post(f"/api/v1/knowledge/{knowledge}/file/add", json={"file_id": file})
        assert answer.status_code == 200, answer.text
    for question, fact in (("What is the keeper called?", FACTS[12]), ("When does the harbour open?", FACTS[37])):
        ask(visitor, question, {"type": "collection", "id": knowledge})
        assert fact in prompt(chat)


def test_a_long_document_leaves_room_for_others(visitor: httpx.Client, chat: OpenWebUI) -> None:
    """What others ask of the embedding model waits for a part of the document, not for all of them."""

    def embed() -> None:
        body = {"model": MANIFEST.auxiliary_models.embedding.id, "input": "A short question."}
        httpx.post(chat.gateway.url("api", "/v1/embeddings"), json=body, timeout=120).raise_for_status()

    embed()  # loads the model
    waits = []
    with ThreadPoolExecutor() as pool:
        began = time.monotonic()
        reading = pool.submit(upload, visitor, "long.pdf", report(60, FACTS))
        while not reading.done():
            asked = time.monotonic()
            embed()
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        reading.result()
        whole = time.monotonic() - began
    print(f"the document took {whole:.1f} s; others waited {max(waits):.1f} s at most")
    assert max(waits) < whole / 2


def test_a_sentence_is_dictated(browser: Browser, chat: OpenWebUI, tmp_path: Path) -> None:
    """By Chromium's own microphone, which plays a file."""
    spoken = auxiliary.speech(SPOKEN, tmp_path / "spoken.wav")
    microphone = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
    ]
    listening = browser.browser_type.launch(executable_path=chromium.PROGRAM, args=[*chromium.QUIET, *microphone])
    with chromium.new_page(listening) as page:
        chromium.open_chat(page, chat.gateway.url("chat", "/"))
        page.get_by_role("button", name="Voice Input").click()
        page.wait_for_timeout(5000)
        page.screenshot(path=chat.gateway.folder / "dictating.png")
        page.get_by_role("button", name="Confirm recording").click()
        expect(page.locator("#chat-input")).to_contain_text(re.compile("window and bring me a glass of water"))
        page.screenshot(path=chat.gateway.folder / "dictated.png")
    listening.close()
