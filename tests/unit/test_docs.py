"""What the documents say is what the manifest, the Makefile and the commands have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aisandbox import manifest
from aisandbox.builder import documents
from aisandbox.manifest import REPOSITORY

MANIFEST = manifest.load()
README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "SECURITY.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", documents.DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_those_of_the_manifest(document: Path) -> None:
    text = document.read_text()
    assert documents.BLOCK.search(text)
    assert text == documents.refreshed(text, MANIFEST), "renew it: make docs"


def test_every_option_is_explained() -> None:
    text = (REPOSITORY / "docs" / "options.md").read_text()
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE)}
    assert rows.keys() == MANIFEST.options_by_key.keys()
    full = documents.refreshed("<!-- table options -->\n<!-- end -->", MANIFEST)
    for option in MANIFEST.options:
        assert f"| `{option.key}` | {option.help} |" in full
        assert f"`{option.key}`" in README


def test_a_changed_option_changes_the_tables() -> None:
    option = MANIFEST.options[0].model_copy(update={"help": "Something new."})
    changed = MANIFEST.model_copy(update={"options": (option, *MANIFEST.options[1:])})
    text = (REPOSITORY / "docs" / "options.md").read_text()
    assert "Something new." in documents.refreshed(text, changed)


@pytest.mark.parametrize("name", ["ssh", "chat", "api"])
def test_the_readme_names_the_public_ports(name: str) -> None:
    assert MANIFEST.ports[name].public
    assert f"| {MANIFEST.ports[name].port} |" in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documented_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z][a-z-]*)", document.read_text(), re.MULTILINE))
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", document.read_text())
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_platform_has_a_page() -> None:
    pages = {path.stem for path in (REPOSITORY / "docs" / "platforms").glob("*.md")}
    disks = {"qemu", "raw", "qcow2"}
    assert pages == MANIFEST.targets.keys() - disks | {"disks", "existing-host", "README"}
    for page in pages - {"README"}:
        text = (REPOSITORY / "docs" / "platforms" / f"{page}.md").read_text()
        assert [head for head in ("Costs", "Limits", "Proof") if f"\n## {head}\n" not in text] == [], page


def test_both_flavours_pin_the_same_vllm() -> None:
    locks = [(REPOSITORY / "locks" / f"vllm-{flavour}.txt").read_text() for flavour in ("cpu", "cuda")]
    versions = {version for lock in locks for version in re.findall(r"^vllm(?:-cpu)?==([\d.]+)", lock, re.MULTILINE)}
    assert len(versions) == 1


def test_locks_hold_hashes_and_no_host() -> None:
    for lock in (REPOSITORY / "locks").glob("*.txt"):
        if lock.name.endswith(".overrides.txt"):
            continue
        text = lock.read_text()
        pins = re.findall(r"^[a-z0-9][^ ]*==[^ ]+ \\\n    --hash=sha256:", text, re.MULTILINE | re.IGNORECASE)
        assert len(pins) == len(re.findall(r"^[A-Za-z0-9][^ ]*==", text, re.MULTILINE)), lock.name
        assert "://" not in text, lock.name
