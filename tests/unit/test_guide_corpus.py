"""The guide's corpus: its shape, its placeholders, that it is true, and that examinations ask what was never taught."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aisandbox import manifest as product
from aisandbox.guide.corpus import CORPUS, PRODUCT, CorpusError, Entry, load_corpus, normalise
from aisandbox.guide.files import CHAT_TEMPLATE
from aisandbox.guide.lessons import prompts
from aisandbox.instance import cli
from sandbox_api.compat.open_webui.router import document
from tests.support import examination

MANIFEST = {
    "product": {"name": "Test Box"},
    "ports": {"ssh": {"port": 1022}, "chat": {"port": 1300}, "api": {"port": 1800}, "sandbox": {"port": 1880}},
    "paths": {"data": "/somewhere/data", "data_volume_label": "test-label"},
    "os": {"default_user": "somebody"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "marketplace.yaml"
    path.write_text(yaml.safe_dump(MANIFEST), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def entries(manifest: Path) -> list[Entry]:
    return load_corpus(manifest)


def _load(tmp_path: Path, manifest: Path, text: str) -> list[Entry]:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return load_corpus(manifest, path)


def _answer(entries: list[Entry], identity: str) -> str:
    return next(entry.answer for entry in entries if entry.id == identity)


def test_ports_paths_and_names_come_from_the_manifest(entries: list[Entry]) -> None:
    assert "http://ADDRESS:1300" in _answer(entries, "chat")
    assert "http://ADDRESS:1800/v1" in _answer(entries, "api")
    assert "on port 1880" in _answer(entries, "sandbox")
    assert "port 1022" in _answer(entries, "ssh")
    assert "/somewhere/data" in _answer(entries, "data")
    assert "label it test-label" in _answer(entries, "volume")
    assert "Test Box" in _answer(entries, "product")


def test_no_port_or_path_is_written_into_the_corpus() -> None:
    text = PRODUCT.read_text(encoding="utf-8")
    for repeated in ("3000", "8000", "8080", "/var/lib", "aisandbox-data", "AI Sandbox"):
        assert repeated not in text.replace("300000", "")


def test_no_placeholder_is_left(entries: list[Entry]) -> None:
    for entry in entries:
        for text in (entry.answer, *entry.questions):
            assert "{" not in text


def test_every_answer_has_questions_and_facts(entries: list[Entry]) -> None:
    for entry in entries:
        assert len(entry.questions) > 5 and entry.facts, entry.id


def test_what_is_asked_in_examinations_was_never_taught(entries: list[Entry]) -> None:
    held_out = {name: [normalise(asked["ask"]) for asked in examination.read(name)] for name in ("product", "general")}
    assert len(set(held_out["product"])) == 200 and len(set(held_out["general"])) == 50
    assert {asked["about"] for asked in examination.read("product")} == {entry.id for entry in entries}
    taught = {normalise(question) for entry in entries for question in entry.questions}
    assert not taught & set(held_out["product"])
    assert not {normalise(prompt) for prompt in prompts()} & set(held_out["general"])


def test_the_tools_are_those_of_the_sandbox() -> None:
    """As its chat template shows what Open WebUI offers."""
    shown = [signature(tool) for tool in examination.offered(document())]
    taught = yaml.safe_load((CORPUS / "tools.yaml").read_text(encoding="utf-8"))["tools"]
    assert shown == [f"{tool['name']}({', '.join(tool['parameters'])}): {tool['description']}" for tool in taught]


def signature(tool: dict[str, Any]) -> str:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(messages=[{"role": "user", "content": "x"}], tools=[tool])
    return text.split("Tools:\n")[1].split("\n")[0]


def test_the_guide_says_what_it_is_and_how_to_replace_it(entries: list[Entry]) -> None:
    answer = _answer(entries, "who")
    assert "135 million parameters" in answer
    assert "sudo aisandbox configure --model ORG/NAME" in answer


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("How do I protect the API?", "sudo aisandbox configure --api-key -"),
        ("How do I protect the chat?", "chat_password"),
        ("How do I allow only my address?", "--set allowed_cidrs="),
        ("How do I enable HTTPS?", "--set domain="),
        ("How do I see what is wrong?", "sudo aisandbox doctor"),
        ("How do I follow the start?", "aisandbox status --watch"),
        ("How do I list the models?", "sudo aisandbox models list"),
        ("How do I undo a change?", "sudo aisandbox configure --edit"),
        ("How do I turn off the sandbox?", "--set sandbox=off"),
        ("How do I set the data volume?", "data_volume"),
        ("Do I lose my chats when I change the model?", "Your chat history stays"),
    ],
)
def test_an_answer_names_the_command_or_the_option_that_does_it(
    entries: list[Entry], question: str, named: str
) -> None:
    (answer,) = (entry.answer for entry in entries if question in entry.questions)
    assert named in answer


def test_every_option_that_is_named_is_an_option(entries: list[Entry]) -> None:
    keys = {option.key for option in product.load().options}
    answers = " ".join(entry.answer for entry in entries)
    named = {*re.findall(r"[a-z]+(?:_[a-z]+)+", answers), *re.findall(r"--set ([a-z]+)=", answers)}
    assert len(named) > 5
    assert named <= keys


def test_every_command_that_is_named_is_one_of_the_instance(entries: list[Entry]) -> None:
    group = typer.main.get_group(cli.app)
    answers = " ".join(entry.answer for entry in entries)
    named = re.findall(r"\baisandbox ([a-z]+)((?: --[a-z-]+| -)*)", answers)
    flags = {flag for _, found in named for flag in re.findall(r"--[a-z-]+", found)}
    assert {name for name, _ in named} <= set(group.commands)
    assert flags <= {
        flag
        for each in group.commands.values()
        for option in each.get_params(typer.Context(each))
        for flag in option.opts
    }
    assert {"status", "configure", "doctor", "models"} <= {name for name, _ in named}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entries: [{id: a, facts: [], answer: x, questions: ['Why?', WHY]}]", "'why' appears twice"),
        ("entries: [{id: a, facts: [], answer: x, questions: ['{{ ports.missing }}']}]", "missing"),
        ("entries: [{id: a, facts: [], questions: ['Why?']}]", "answer"),
        ("entries: [{id: a, facts: [], answer: x, questions: [yes]}]", "expected a text, found True"),
        ("entries: [{id: a, facts: [], answer: x}]", "questions"),
        ("entries: [{id: a, answer: x, questions: ['Why?']}]", "facts"),
        ("entries: [{id: a, facts: [[y, z]], answer: x, questions: ['Why?']}]", "its own answer lacks y or z"),
        ("entries: [", "some.yaml"),
        ("nothing: here", "entries"),
    ],
)
def test_a_bad_corpus_is_refused(tmp_path: Path, manifest: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        _load(tmp_path, manifest, text)


def test_a_bad_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nowhere.yaml"):
        load_corpus(tmp_path / "nowhere.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(CorpusError, match="empty.yaml"):
        load_corpus(tmp_path / "empty.yaml")


@pytest.mark.parametrize("question", ["  What is this?\n", "what is this", "WHAT IS THIS?!", "What is this ?"])
def test_questions_are_the_same_when_only_their_writing_differs(question: str) -> None:
    assert normalise(question) == "what is this"
