"""Python distributions of the environments below /opt/aisandbox/envs."""

from __future__ import annotations

import hashlib
import re
from email.errors import MessageError
from email.message import Message
from email.parser import HeaderParser

from packaging.utils import canonicalize_name

from aisandbox.builder.supply import licences
from aisandbox.builder.supply.inventory import OPT, Findings, Kind, Package, clean
from aisandbox.builder.supply.licences import NOASSERTION
from aisandbox.check.tree import Tree

ENVS = f"{OPT}/envs"
LARGEST = 8 * 2**20
SUFFIX = ".dist-info"
LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)((?:[^\n\\]|\\\n)*)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def environments(tree: Tree) -> list[str]:
    """Names of the environments."""
    return [name for name in tree.names(ENVS) if tree.names(f"{ENVS}/{name}/lib")]


def read(tree: Tree) -> Findings:
    """Every distribution of every environment."""
    found = Findings()
    for environment in environments(tree):
        lock = locked(tree.text(f"{ENVS}/{environment}.txt") or "")
        for python in tree.names(f"{ENVS}/{environment}/lib"):
            packages = f"{ENVS}/{environment}/lib/{python}/site-packages"
            for name in tree.names(packages):
                if name.endswith(SUFFIX):
                    _read_one(tree, f"{packages}/{name}", environment, lock, found)
    return found


def locked(text: str) -> dict[tuple[str, str], list[str]]:
    """What a lock file pins: name and version, and the digests of the files that it allows."""
    return {(canonicalize_name(name), version): HASH.findall(rest) for name, version, rest in LOCKED.findall(text)}


def _read_one(
    tree: Tree, folder: str, environment: str, lock: dict[tuple[str, str], list[str]], found: Findings
) -> None:
    stem = folder.rsplit("/", 1)[1].removesuffix(SUFFIX)
    text = tree.text(f"{folder}/METADATA", LARGEST)
    record = _headers(text or "")
    fallback, _, fallback_version = stem.partition("-")
    name, version = clean(record["Name"]) or fallback, clean(record["Version"]) or fallback_version
    if text is None or not record["Name"] or not record["Version"]:
        found.problems.append(f"/{folder}/METADATA: missing, not readable or without name or version")
    licence, said_in, licence_text = _licence(tree, folder, record)
    if licence_text:
        found.texts.setdefault(licence, licence_text)
    hashes = lock.get((canonicalize_name(name), version), [])
    found.packages.append(
        Package(
            kind=Kind.python,
            name=canonicalize_name(name),
            version=version,
            licence=licence,
            said_in=said_in,
            supplier=clean(record["Author"] or record["Author-email"] or record["Maintainer"]),
            homepage=_homepage(record),
            places=(environment,),
            # Of several files that the lock allows, the installed one cannot be told.
            artifact=f"sha256:{hashes[0]}" if len(hashes) == 1 else "",
            content=_content(tree, folder),
        )
    )


def _headers(text: str) -> Message:
    try:
        return HeaderParser().parsestr(text)
    except (MessageError, ValueError):
        return Message()


def _homepage(record: Message) -> str:
    urls = [str(record["Home-page"] or "")]
    urls += [str(value).partition(",")[2] for value in record.get_all("Project-URL") or []]
    return next((clean(url) for url in urls if clean(url).startswith(("https://", "http://"))), "")


def _content(tree: Tree, folder: str) -> str:
    record = tree.text(f"{folder}/RECORD")
    if record is None:
        return ""
    # Byte-code is made at installation.
    lines = sorted(line for line in record.splitlines() if ".pyc," not in line and ".dist-info/RECORD" not in line)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()


def _licence(tree: Tree, folder: str, record: Message) -> tuple[str, str, str]:
    """The licence, where it is said, and its text if it is none of SPDX's list."""
    expression = clean(record["License-Expression"])
    if found := licences.spdx(expression):
        return found, "License-Expression", ""
    said = str(record["License"] or "").strip()
    classifiers = [
        str(value).rsplit("::", 1)[-1].strip()
        for value in record.get_all("Classifier") or []
        if str(value).startswith("License ::")
    ]
    if said and said.upper() != "UNKNOWN" and (found := licences.spdx(said) or licences.titled(said)):
        return found, "License", said[: licences.LARGEST_TEXT] if found.startswith("LicenseRef-") else ""
    known = [licences.CLASSIFIERS[name] for name in classifiers if name in licences.CLASSIFIERS]
    precise = [name for name in known if not name.startswith("LicenseRef-")]
    if precise:
        return licences.all_of(precise), "Classifier", ""
    files = [f"{folder}/licenses/{name}" for name in record.get_all("License-File") or []]
    files += [f"{folder}/{name}" for name in record.get_all("License-File") or []]
    for path in files:
        text = tree.text(str(path), LARGEST)
        if text and (found := licences.titled(text)):
            return found, f"/{path}", text[: licences.LARGEST_TEXT] if found.startswith("LicenseRef-") else ""
    short = said if "\n" not in said and said.upper() != "UNKNOWN" and len(said) <= licences.LONGEST else ""
    if expression or (short and not short.upper().startswith("BSD")):
        return licences.reference(expression or clean(short)), "License", clean(expression or short)
    if known:
        return licences.all_of(known), "Classifier", ""
    if short:
        return licences.reference(clean(short)), "License", clean(short)
    return NOASSERTION, "", ""
