"""Skills: register, list, read, delete."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from typing import Any

import agent_sandbox
import pytest

from sandbox_api.skills import manifest
from tests.support.sandbox import Sandbox, running

TEXT = "---\nname: {name}\ndescription: Does {name} well\n---\n\n# How\n\nLike this.\n"


def archive(files: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def register(sandbox: Sandbox, content: bytes | None = None, **fields: str) -> Any:
    files = {"file": ("skills.zip", content)} if content is not None else {"unused": ("x", b"")}
    return sandbox.client.post("/v1/skills/register", files=files, data=fields)


@pytest.fixture(autouse=True)
def _empty(sandbox: Sandbox) -> Iterator[None]:
    yield
    sandbox.client.delete("/v1/skills")


def test_a_zip_of_two(sandbox: Sandbox) -> None:
    content = archive(
        {"all/one/SKILL.md": TEXT.format(name="one"), "all/two/SKILL.md": "# plain", "all/two/run.py": "print(1)"}
    )
    answer = register(sandbox, content).json()
    assert answer["data"]["count"] == 2, answer
    listed = sandbox.client.get("/v1/skills/metadatas").json()["data"]["skills"]
    assert [skill["name"] for skill in listed] == ["one", "two"]
    assert listed[0]["metadata"] == {"name": "one", "description": "Does one well"}
    assert (sandbox.root / "skills" / "two" / "run.py").read_text() == "print(1)"
    only = sandbox.client.get("/v1/skills/metadatas", params={"names": "two,absent"}).json()["data"]["skills"]
    assert [skill["name"] for skill in only] == ["two"]
    text = sandbox.client.get("/v1/skills/one/content").json()["data"]
    assert text == {"name": "one", "path": str(sandbox.root / "skills" / "one"), "content": "# How\n\nLike this."}


def test_a_single_file_and_a_new_version(sandbox: Sandbox) -> None:
    register(sandbox, archive({"SKILL.md": TEXT.format(name="solo"), "old.txt": ""}))
    assert register(sandbox, TEXT.format(name="solo").replace("Like this", "Better").encode()).status_code == 200
    assert "Better" in sandbox.client.get("/v1/skills/solo/content").json()["data"]["content"]
    assert not (sandbox.root / "skills" / "solo" / "old.txt").exists()
    assert sorted(path.name for path in (sandbox.root / "skills").iterdir()) == ["solo"]


def test_a_folder_of_the_sandbox(sandbox: Sandbox) -> None:
    folder = sandbox.workspace / "plan"
    folder.mkdir()
    (folder / "SKILL.md").write_text("just do it")
    (folder / "secret").symlink_to("/etc/passwd")
    assert register(sandbox, path=str(folder)).json()["data"]["registered"][0]["name"] == "plan"
    assert not (sandbox.root / "skills" / "plan" / "secret").exists()
    assert register(sandbox, path=str(folder), name="renamed").json()["data"]["registered"][0]["name"] == "renamed"


def test_delete(sandbox: Sandbox) -> None:
    for name in ("one", "two"):
        register(sandbox, TEXT.format(name=name).encode())
    assert sandbox.client.delete("/v1/skills/one").json()["data"]["name"] == "one"
    assert sandbox.client.delete("/v1/skills/one").json()["error"]["code"] == "skill_not_found"
    assert sandbox.client.delete("/v1/skills").json()["data"] == {"removed": ["two"], "count": 1}


def test_the_peer_client(sandbox: Sandbox) -> None:
    client = agent_sandbox.Sandbox(base_url=sandbox.url)
    done = client.skills.register_skills(file=archive({"mine/SKILL.md": TEXT.format(name="mine")}))
    assert done.success and done.data and done.data.count == 1
    listed = client.skills.list_metadata().data
    assert listed and listed.skills and listed.skills[0].name == "mine"
    content = client.skills.get_content("mine").data
    assert content and content.content.startswith("# How")
    assert client.skills.delete_skill("mine").success
    assert client.skills.clear_skills().success


@pytest.mark.parametrize(
    "name",
    ["../evil.md", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil"],
    ids=["up", "root", "within", "dos", "drive"],
)
def test_an_archive_that_leads_outside(sandbox: Sandbox, name: str) -> None:
    answer = register(sandbox, archive({"a/SKILL.md": TEXT.format(name="a"), name: "x"}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert not list(sandbox.root.rglob("evil*"))
    assert sandbox.client.get("/v1/skills/metadatas").json()["data"]["skills"] == []


def test_a_link_in_an_archive(sandbox: Sandbox) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/SKILL.md", TEXT.format(name="a"))
        link = zipfile.ZipInfo("a/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    assert register(sandbox, buffer.getvalue()).json()["error"]["code"] == "invalid_request"


def test_what_cannot_be_registered(sandbox: Sandbox) -> None:
    def code(content: bytes | None = None, **fields: str) -> tuple[int, str]:
        answer = register(sandbox, content, **fields)
        return answer.status_code, answer.json()["error"]["code"]

    two = archive({"a/SKILL.md": "x", "b/SKILL.md": "y"})
    assert code() == (422, "invalid_request")
    assert code(b"PK\3\4 broken") == (415, "unsupported_media_type")
    damaged = bytearray(archive({"a/SKILL.md": TEXT.format(name="a") * 9}))
    damaged[45] ^= 0xFF  # in what deflate has made of it
    assert code(bytes(damaged)) == (415, "unsupported_media_type")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # which unpack any amount at once
        assert code(archive({"a/SKILL.md": TEXT.format(name="a")}, method)) == (415, "unsupported_media_type")
    assert code(bytes(range(128, 256))) == (415, "unsupported_media_type")
    assert code(b"no front matter") == (415, "unsupported_media_type")
    assert code(archive({"readme.txt": "x"})) == (422, "invalid_request")
    assert code(archive({"SKILL.md": "no name anywhere"})) == (422, "invalid_request")
    assert code(archive({"a/SKILL.md": TEXT.format(name="../up")})) == (422, "invalid_request")
    assert code(archive({"a": "x", "a/SKILL.md": "x"})) == (422, "invalid_request")
    assert code(archive({"x" * 300 + "/SKILL.md": "x"})) == (422, "invalid_request")
    assert code(two, name="one") == (422, "invalid_request")
    assert code(path="/etc") == (403, "path_outside")
    assert code(path="relative") == (422, "path_not_absolute")
    assert code(path=str(sandbox.workspace / "absent")) == (404, "file_not_found")
    assert code(path=str(sandbox.root)) == (422, "invalid_request")
    assert sandbox.client.get("/v1/skills/..%2f..%2fetc/content").status_code == 404
    assert sandbox.client.get("/v1/skills/metadatas").json()["data"]["skills"] == []


def test_a_bomb_and_skills_that_outlive_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("bomb")
    with running(root, skill_bytes="200000") as sandbox:
        bomb = archive({"a/SKILL.md": TEXT.format(name="a"), "a/zeros": bytes(50_000_000)})
        assert len(bomb) < 200_000
        answer = register(sandbox, bomb)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        many = archive({f"a/{number}": "" for number in range(5001)})
        assert register(sandbox, many).json()["error"]["code"] == "too_large"
        assert list((root / "skills").iterdir()) == []
        register(sandbox, TEXT.format(name="kept").encode())
    with running(root) as sandbox:
        assert sandbox.client.get("/v1/skills/kept/content").status_code == 200


def test_front_matter() -> None:
    text = (
        "---\nname: \"a: b\"\ntags: [x, 'y']\nlist:\n  - one\n  - two\nlong: >\n  some\n  words\n"
        "nested:\n  key: value\non: true\nempty:\n# comment\n---\nbody\n"
    )
    fields, body = manifest.parse(text)
    assert fields == {
        "name": "a: b", "tags": ["x", "y"], "list": ["one", "two"], "long": "some words\n",
        "nested": {"key": "value"}, "on": True, "empty": None,
    }  # fmt: skip
    assert body == "body"
    assert manifest.parse("no fence") == ({}, "no fence")
    assert manifest.parse("---\nname: x\nnever closed") == ({}, "---\nname: x\nnever closed")
    assert manifest.parse("") == ({}, "")
    numbers, _ = manifest.parse("---\nversion: 1.10\ndate: 2024-01-99\n1: {a: [yes, ~]}\n---\n")
    assert numbers == {"version": "1.10", "date": "2024-01-99", "1": {"a": ["yes", None]}}


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"
DEEP = "a: " + "[" * 150 + "]" * 150
LONG = "a: b\n" * 20_000


@pytest.mark.parametrize("lines", ["!bad", "a: b: c", "- a list", "a: " + "[" * 5000, DEEP, LONG, BOMB])
def test_front_matter_that_is_not_valid(lines: str) -> None:
    text = f"---\nname: x\n{lines}\n---\nbody"
    assert manifest.parse(text) == ({}, "body")
    with pytest.raises(ValueError, match="."):
        manifest.parse(text, strict=True)


def test_a_skill_with_broken_front_matter_is_refused(sandbox: Sandbox) -> None:
    for content in (b"---\nname: x: y\n---\n", archive({"a/SKILL.md": "---\nname: x: y\n---\n"})):
        answer = register(sandbox, content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
        assert "line 1" in answer.json()["message"] and "quotes" in answer.json()["hint"]
