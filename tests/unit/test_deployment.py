"""The document of a deployment: what one step writes, the next reads with the same types."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from aisandbox.instance import files
from aisandbox.instance.access import Access
from aisandbox.instance.deployment import FORM, Asked, Deployment, DocumentError, Gpu, Hardware, Serving
from aisandbox.instance.problem import Problem
from tests.support.deployments import located, serving

GPUS = Hardware(flavour="cuda", ram_gib=64, gpus=(Gpu(name="NVIDIA L4", memory_gib=22.5, capability=(8, 9)),))
ASKED = serving("/m", "--max-model-len", "512", names=("name", "alias"))
WHOLE = Deployment(
    serving=Serving(model="acme/tiny", served_names=("mine",)),
    guide=Serving(model="acme/guide", embedded=True),
    hardware=GPUS,
    asked=Asked(max_model_len=512, vllm_args=("--seed", "1")),
    access=Access(allowed_cidrs=("192.0.2.0/24",), sandbox="off"),
    problems=(Problem(option="model", value="x", reason="is bad", fix="Choose."),),
    candidates=(ASKED,),
)


def content(**changes: object) -> bytes:
    """A document with other entries of its first candidate."""
    entry = {"model": "m", "folder": "/m", "served_names": ["name"], "args": ["-a"], **changes}
    whole = {"form": FORM, "serving": {"model": "m"}, "guide": {"model": "g"}, "hardware": {"flavour": "cpu"}}
    return json.dumps({**whole, "candidates": [entry]}).encode()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    assert WHOLE.save(path)
    assert Deployment.load(path) == WHOLE
    assert not WHOLE.save(path), "nothing has changed"


def test_no_document_yet(tmp_path: Path) -> None:
    assert Deployment.load(tmp_path / "document.json") is None
    with pytest.raises(DocumentError, match="cannot be read"):
        Deployment.load(tmp_path)
    assert Deployment.find(tmp_path) is None


@pytest.mark.parametrize("entries", [{}, {"model": "acme/tiny"}, {"form": FORM + 1, "new": "field"}])
def test_a_document_of_another_release_counts_as_none(tmp_path: Path, entries: dict[str, object]) -> None:
    """Whoever waits goes on waiting: it is written anew when the services are started."""
    path = tmp_path / "document.json"
    files.write_json(path, entries)
    assert Deployment.load(path) is None


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (b"", "not JSON"),
        (b'{"model": "x"', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"form": 1}', "is missing"),
        (content(model=None), "`model`"),
        (content(args="--a"), "`args`"),
        (content(served_names=[1]), "`served_names`"),
        (content(processor="yes"), "`processor`"),
        (content(why="it was before"), "`why` is not known"),
        (content().replace(b'"cpu"', b'"tpu"'), "`flavour` must be one of cpu, cuda"),
        (content().replace(b'"candidates": [', b'"candidates": [1, '), "`candidates` is not an object"),
    ],
)
def test_an_unusable_document_is_named(given: bytes, complaint: str) -> None:
    with pytest.raises(DocumentError, match=complaint):
        Deployment.parse(given)


def test_fallbacks_answer_to_their_own_names_first() -> None:
    asked, fallback = located(ASKED, serving("/f", "-x", names=("f", "name"))).attempts
    assert asked == ASKED
    assert fallback == serving("/f", "-x", names=("f", "name", "alias"))


def test_other_gpus_are_another_deployment_for_the_engine() -> None:
    plain, some, others = (located(ASKED, devices=devices) for devices in ((), ("GPU-1",), ("GPU-2",)))
    assert len({plain.digest, some.digest, others.digest}) == 3
    assert plain.digest == plain.attempts[0].id


def test_the_digest_is_of_what_was_asked_for(tmp_path: Path) -> None:
    document = located(ASKED)
    document.save(tmp_path / "document.json")
    again = Deployment.load(tmp_path / "document.json")
    assert again and again.digest == document.digest
    assert located(ASKED, serving("/f")).digest == document.digest
    changes: tuple[dict[str, object], ...] = ({"folder": "/x"}, {"served_names": ("x",)}, {"args": ()})
    others = {located(replace(ASKED, **change)).digest for change in changes}  # type: ignore[arg-type]
    assert len({document.digest, *others}) == 4


def test_a_problem_can_be_shown_anywhere() -> None:
    assert str(Problem(reason="a\x1b[2J\nb", fix="c")) == "a?[2J b"
