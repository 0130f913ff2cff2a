"""Debian packages of a root file system, and what their copyright files say."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from aisandbox.builder.supply import licences
from aisandbox.builder.supply.inventory import Findings, Kind, Package, clean
from aisandbox.builder.supply.licences import NOASSERTION
from aisandbox.check.dpkg import STATUS, installed, paragraphs
from aisandbox.check.tree import Tree

LARGEST_COPYRIGHT = 4 * 2**20
FORMAT = re.compile(r"copyright-format|dep-?5", re.IGNORECASE)


@dataclass(frozen=True)
class Copyright:
    """What a copyright file says; NOASSERTION when machines cannot read it."""

    licence: str
    texts: dict[str, str]


def read(tree: Tree) -> Findings:
    """Every installed package."""
    found = Findings()
    status = tree.text(STATUS)
    if status is None:
        found.problems.append(f"/{STATUS}: missing or not readable")
        return found
    distribution = _distribution(tree)
    seen: dict[str, Copyright] = {}
    for record in paragraphs(status):
        if not installed(record):
            continue
        name, version = clean(record.get("Package")), clean(record.get("Version"))
        if not name or not version:
            found.problems.append(f"/{STATUS}: an installed package without {'version' if name else 'name'}: {name}")
        if not name:
            continue
        source, _, source_version = clean(record.get("Source", name)).partition(" ")
        path = f"usr/share/doc/{name}/copyright"
        place = tree.find(path)
        text = tree.text(path, LARGEST_COPYRIGHT)
        if text is None:
            found.problems.append(f"{name}: /{path} is missing or not readable")
            said = Copyright(NOASSERTION, {})
        else:
            said = seen.get(str(place)) or copyright_of(text, source)
            seen[str(place)] = said
        found.texts.update(said.texts)
        architecture = clean(record.get("Architecture"))
        found.packages.append(
            Package(
                kind=Kind.debian,
                name=name,
                version=version,
                architecture=architecture,
                source=source,
                source_version=source_version.strip("()") or version,
                section=clean(record.get("Section")),
                distribution=distribution,
                licence=said.licence,
                said_in=f"/{path}" if text is not None else "",
                supplier=clean(record.get("Maintainer")),
                homepage=clean(record.get("Homepage")),
                content=_content(tree, name, architecture),
            )
        )
    return found


def _distribution(tree: Tree) -> str:
    facts = dict(
        re.findall(r'^(ID|VERSION_ID)="?([A-Za-z0-9._-]+)"?\s*$', tree.text("etc/os-release", 2**16) or "", re.M)
    )
    return "-".join((facts.get("ID", "debian"), *([facts["VERSION_ID"]] if "VERSION_ID" in facts else [])))


def _content(tree: Tree, name: str, architecture: str) -> str:
    for stem in (name, f"{name}:{architecture}"):
        sums = tree.read(f"var/lib/dpkg/info/{stem}.md5sums")
        if sums is not None:
            return "sha256:" + hashlib.sha256(b"\n".join(sorted(sums.splitlines()))).hexdigest()
    return ""


def copyright_of(text: str, source: str) -> Copyright:
    """The licences that a copyright file names for the package's files, and texts of those that SPDX does not have."""
    blocks = list(paragraphs(text))
    if not blocks or not FORMAT.search(blocks[0].get("Format", blocks[0].get("Format-Specification", ""))):
        return Copyright(NOASSERTION, {})
    stated = [block for block in blocks if "Files" in block and block.get("License", "").strip()]
    stated = stated or [block for block in blocks[:1] if block.get("License", "").strip()]
    names = sorted({block["License"].split("\n", 1)[0].strip() for block in stated} - {""})
    expression = licences.all_of(licences.debian(name, source) for name in names)
    used = set(licences.symbols(expression))
    texts: dict[str, str] = {}
    for block in blocks:
        name, _, body = block.get("License", "").partition("\n")
        mark = licences.debian(name, source) if name.strip() else ""
        if mark in used and mark.startswith("LicenseRef-") and body.strip():
            texts.setdefault(mark, body.strip()[: licences.LARGEST_TEXT])
    return Copyright(expression, texts)
