"""Packages of npm in the `node_modules` folders below /opt/aisandbox, nested ones included."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from aisandbox.builder.supply import licences
from aisandbox.builder.supply.inventory import OPT, Findings, Kind, Package, clean
from aisandbox.builder.supply.licences import NOASSERTION
from aisandbox.check.tree import Tree

FOLDER = "node_modules"
LOCK = ".package-lock.json"
"""What npm writes about what it has installed."""
LARGEST = 2**20
LARGEST_LOCK = 32 * 2**20
NAME = re.compile(r"(@[A-Za-z0-9~_-][A-Za-z0-9._~-]*/)?[A-Za-z0-9~_-][A-Za-z0-9._~-]*")


def read(tree: Tree) -> Findings:
    """Every package."""
    found = Findings()
    for path, folders, _ in tree.walk(OPT):
        if not path.endswith(f"/{FOLDER}"):
            continue
        lock = _object(tree.text(f"{path}/{LOCK}", LARGEST_LOCK)).get("packages")
        # npm writes one lock for all folders below, by their paths.
        locked = lock if isinstance(lock, dict) else {}
        for name in folders:
            if name.startswith("@"):
                for scoped in tree.names(f"{path}/{name}"):
                    _read_one(tree, path, f"{name}/{scoped}", locked, found)
            elif not name.startswith("."):
                _read_one(tree, path, name, locked, found)
    return found


def _object(text: str | None) -> dict[str, Any]:
    try:
        content = json.loads((text or "").removeprefix("\ufeff") or "null")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_one(tree: Tree, path: str, folder: str, locked: dict[str, Any], found: Findings) -> None:
    place = f"{path}/{folder}"
    record = _object(tree.text(f"{place}/package.json", LARGEST))
    declared, version = record.get("name"), clean(record.get("version"))
    if not record and "package.json" not in tree.names(place) and f"{FOLDER}/{folder}" not in locked:
        # Compilers leave folders of that name.
        return
    valid = isinstance(declared, str) and bool(NAME.fullmatch(declared))
    name = str(declared) if valid else clean(folder)
    if not valid or not version:
        found.problems.append(f"/{place}/package.json: missing, not readable or without name or version")
    licence, said_in, text = _licence(tree, place, record)
    if text:
        found.texts.setdefault(licence, text)
    entry = locked.get(f"{FOLDER}/{folder}")
    found.packages.append(
        Package(
            kind=Kind.npm,
            name=name,
            version=version,
            licence=licence,
            said_in=said_in,
            supplier=_person(record.get("author")),
            homepage=_url(record.get("homepage")),
            places=(f"/{path}",),
            artifact=_integrity(entry) if isinstance(entry, dict) and entry.get("version") == version else "",
        )
    )


def _person(author: object) -> str:
    return clean(author.get("name")) if isinstance(author, dict) else clean(author)


def _url(homepage: object) -> str:
    url = clean(homepage)
    return url if re.fullmatch(r"https?://[^\s<>\"]+", url) else ""


def _integrity(entry: dict[str, Any]) -> str:
    algorithm, _, encoded = str(entry.get("integrity") or "").split(" ")[0].partition("-")
    try:
        digest = base64.b64decode(encoded, validate=True).hex()
    except (ValueError, binascii.Error):
        return ""
    return f"{algorithm}:{digest}" if algorithm in ("sha256", "sha384", "sha512", "sha1") and digest else ""


def _licence(tree: Tree, place: str, record: dict[str, Any]) -> tuple[str, str, str]:
    """The licence, where it is said, and its text if it is none of SPDX's list."""
    said = record.get("license")
    stated = said if isinstance(said, list) else [said]
    older = record.get("licenses")
    stated += older if isinstance(older, list) else [older]
    names = [clean(entry.get("type") if isinstance(entry, dict) else entry) for entry in stated if entry]
    names = [name for name in names if name]
    expressions = [licences.spdx(name) for name in names]
    if names and all(expressions):
        # Several licences in this older form are a choice.
        choices = sorted({expression for expression in expressions if expression})
        return " OR ".join(choices), "license", ""
    for name in tree.names(place):
        if re.match(r"(?i)licen[sc]e|copying", name):
            text = tree.text(f"{place}/{name}", LARGEST)
            if text and (found := licences.titled(text)):
                return (
                    found,
                    f"/{place}/{name}",
                    text[: licences.LARGEST_TEXT] if found.startswith("LicenseRef-") else "",
                )
    if names and not re.match(r"(?i)see licen[sc]e|unlicensed", names[0]):
        return licences.reference(*names), "license", " or ".join(names)
    if names and names[0].upper() == "UNLICENSED":
        return licences.reference("Proprietary"), "license", "UNLICENSED: all rights reserved"
    return NOASSERTION, "license" if names else "", ""
