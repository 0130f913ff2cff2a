"""The guide's corpus: its shape, its placeholders, and that what is held out stays held out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

from aisandbox import manifest as product
from aisandbox.guide.corpus import CORPUS, CorpusError, Entry, load_corpus, normalise
from aisandbox.instance import cli

MANIFEST = {
    "product": {"name": "Test Box"},
    "ports": {"ssh": {"port": 1022}, "chat": {"port": 1300}, "api": {"port": 1800}, "sandbox": {"port": 1880}},
    "paths": {"data": "/somewhere/data", "data_volume_label": "test-label"},
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
    (tmp_path / "some.yaml").write_text(text, encoding="utf-8")
    return load_corpus(manifest, tmp_path)


def _answer(entries: list[Entry], identity: str) -> str:
    return next(entry.answer for entry in entries if entry.id == identity)


def test_ports_paths_and_names_come_from_the_manifest(entries: list[Entry]) -> None:
    assert "http://ADDRESS:1300" in _answer(entries, "chat")
    assert "http://ADDRESS:1800/v1" in _answer(entries, "api")
    assert "on port 1880" in _answer(entries, "sandbox")
    assert "port 1022" in _answer(entries, "ssh")
    assert "/somewhere/data" in _answer(entries, "data")
    assert "mkfs.ext4 -L test-label" in _answer(entries, "volume")
    assert "Test Box" in _answer(entries, "product")


def test_no_port_or_path_is_written_into_the_corpus() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in CORPUS.glob("*.yaml"))
    for repeated in ("3000", "8000", "8080", "/var/lib", "aisandbox-data", "AI Sandbox"):
        assert repeated not in text.replace("300000", "")


def test_no_placeholder_is_left(entries: list[Entry]) -> None:
    for entry in entries:
        for text in (entry.answer, *entry.questions, *entry.held_out):
            assert "{" not in text


def test_every_answer_has_questions_and_known_ones_are_checked_on_others(entries: list[Entry]) -> None:
    for entry in entries:
        assert entry.questions
        assert entry.held_out or entry.fallback


def test_held_out_questions_are_not_trained_on(entries: list[Entry]) -> None:
    trained = {normalise(question) for entry in entries for question in entry.questions}
    held_out = {normalise(question) for entry in entries for question in entry.held_out}
    assert len(held_out) > 100
    assert not trained & held_out


def test_the_guide_says_what_it_is_and_how_to_replace_it(entries: list[Entry]) -> None:
    answer = _answer(entries, "who")
    assert "two million parameters" in answer
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
        ("Do I lose my chats when I change the model?", "the chat history stays"),
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
    assert flags <= {flag for each in group.commands.values() for option in each.params for flag in option.opts}
    assert {"status", "configure", "doctor", "models"} <= {name for name, _ in named}


def test_a_command_is_run_for_the_time(entries: list[Entry]) -> None:
    tool = next(entry.tool for entry in entries if entry.id == "time")
    assert tool is not None
    assert tool.command == "date"


def test_a_family_has_one_entry_per_answer(tmp_path: Path, manifest: Path) -> None:
    text = """
entries:
  - id: colour
    each: [{thing: snow, colour: white}, {thing: coal, colour: black}]
    answer: "{{ thing }} is {{ colour }}"
    questions: ["Colour of {{ thing }}?", "Which colour has {{ thing }}?"]
"""
    first, second = _load(tmp_path, manifest, text)
    assert (first.answer, second.answer) == ("snow is white", "coal is black")
    assert first.questions == ("Colour of snow?", "Which colour has snow?")


def test_a_family_that_shares_its_answer_is_one_entry(tmp_path: Path, manifest: Path) -> None:
    text = """
answer: I do not know.
entries:
  - id: unknown
    each: [snow, coal]
    questions: ["Who made {{ it }}?"]
"""
    (entry,) = _load(tmp_path, manifest, text)
    assert entry.fallback
    assert entry.questions == ("Who made snow?", "Who made coal?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entries: [{id: a, answer: x, questions: ['Why?', WHY]}]", "'WHY' appears twice"),
        ("entries: [{id: a, answer: x, questions: ['Why?'], held_out: [why]}]", "'why' appears twice"),
        ("entries: [{id: a, answer: x, questions: ['{{ ports.missing }}']}]", "missing"),
        ("entries: [{id: a, questions: ['Why?']}]", "expected a text, found None"),
        ("entries: [{id: a, answer: x, questions: [yes]}]", "expected a text, found True"),
        ("entries: [{id: a, answer: x}]", "questions"),
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
