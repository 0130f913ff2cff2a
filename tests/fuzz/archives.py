"""Archives: releases and skills that somebody sends, and folders that are packed."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import os
import subprocess
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from aisandbox.instance.keep.upgrade import bundle, rules, unpack
from aisandbox.instance.keep.upgrade.bundle import Archive, Component
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.source import Tar
from sandbox_api.errors import SandboxError
from sandbox_api.file import archive
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings
from sandbox_api.skills.service import SkillsService
from tests.fuzz.search import Property
from tests.support import releases

OWNED = f"{rules.OPT}/lib"
COMPONENT = Component("lib", (OWNED,), "d" * 64, 1 << 16, 20, Archive("a" * 64, 1 << 16))
SKILL = b"---\nname: a-skill\ndescription: it does\n---\nDo it.\n" * 4
SMALL = 300
"""Less than a thousandth of a second each: most inputs are cut short by the first thing that is wrong."""


@cache
def _zips() -> list[bytes]:
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        plain = io.BytesIO()
        with zipfile.ZipFile(plain, "w", method) as packed:
            packed.writestr("skill/SKILL.md", SKILL)
            packed.writestr("skill/notes/", b"")
            packed.writestr("skill/notes/a.txt", b"a" * 100)
        found.append(plain.getvalue())
    return found


@cache
def _tars(of_component: bool) -> list[bytes]:
    found = []
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=form) as packed:
            for name, kind, content in (
                (OWNED, tarfile.DIRTYPE, b""),
                (f"{OWNED}/code.py", tarfile.REGTYPE, b"VERSION = 1\n"),
                (f"{OWNED}/{'long' * 30}.py", tarfile.REGTYPE, b"x"),
                (f"{OWNED}/link", tarfile.SYMTYPE, b""),
            ) if of_component else (
                ("release/release.json", tarfile.REGTYPE, b"{}"),
                (f"release/{'é' * 60}", tarfile.REGTYPE, b"x" * 700),
            ):  # fmt: skip
                entry = tarfile.TarInfo(name)
                entry.type, entry.size, entry.linkname = (
                    kind,
                    len(content),
                    "code.py" if kind == tarfile.SYMTYPE else "",
                )
                entry.mode, entry.mtime = 0o755, 1_700_000_000.5 if form == tarfile.PAX_FORMAT else 1_700_000_000
                packed.addfile(entry, io.BytesIO(content))
        found.append(plain.getvalue())
    return found


def _fixed_sum(content: bytearray) -> None:
    """Give every header of a tar the sum that it has now, or nothing but the sum is ever wrong."""
    for at in range(0, len(content) - 511, 512):
        header = content[at : at + 512]
        if header[257:262] == b"ustar":
            header[148:156] = b" " * 8
            content[at + 148 : at + 156] = b"%06o\0 " % sum(header)


PIECES = [
    b"\xff" * 8, b"\x80" + b"\xff" * 7, b"\0" * 8, b"7" * 11, b"-1", b"inf\n", b"../", b"/etc/x", b"\xed\xa0\x80",
    b"S", b"x", b"30 mtime=1e999\n", b"22 size=-1\n",
]  # fmt: skip
EDIT = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8) | st.sampled_from(PIECES))
EDITS = st.lists(EDIT, max_size=5)


def _edited(content: bytes, edits: list[tuple[float, bytes]], kept: float, *, sums: bool = False) -> bytes:
    changed = bytearray(content)
    for place, new in edits:
        at = int(place * len(changed))
        changed[at : at + len(new)] = new
    if sums:
        _fixed_sum(changed)
    return bytes(changed[: int(kept * len(changed)) + 1])


def _below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def skills_are_taken_or_refused(base: int, edits: list[tuple[float, bytes]], kept: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        root.mkdir()
        settings = Settings(root=root, web_assets=None)
        service = SkillsService(settings, Confinement(settings))
        try:
            asyncio.run(service.register(io.BytesIO(_edited(_zips()[base], edits, kept)), None, None))
        except SandboxError as refusal:
            assert refusal.message.isprintable()
            assert not {name for name in _below(root) if name != "skills"}
        assert all(
            name == "root" or name.startswith(("root/skills", "root/workspace")) for name in _below(Path(folder))
        )


def releases_are_found_or_refused(base: int, edits: list[tuple[float, bytes]], kept: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "release.tar").write_bytes(_edited(_tars(False)[base], edits, kept, sums=True))
        (place / "out").mkdir()
        try:
            Tar(place / "release.tar").fetch("release.json", place / "out", 1 << 16, lambda _: None)
        except UpgradeError as refusal:
            assert refusal.fix
        assert _below(place) <= {"release.tar", "out", "out/release.json"}


def components_stay_in_their_place(base: int, edits: list[tuple[float, bytes]], kept: float, packed: bool) -> None:
    """Whatever the archive holds, nothing comes to lie beside the component's own path."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plain = _tars(True)[base]
        content = plain if packed else _edited(plain, edits, kept, sums=True)
        shrunk = subprocess.run(["zstd", "-q", "-1"], input=content, capture_output=True, check=True).stdout
        (place / "packed").write_bytes(_edited(shrunk, edits, kept) if packed else shrunk)
        try:
            unpack.unpack(place / "packed", COMPONENT, place / "root", lambda _: None)
        except UpgradeError as refusal:
            assert refusal.fix
        beside = {name for name in _below(place / "root") if name != OWNED and not name.startswith(f"{OWNED}/")}
        assert all(OWNED.startswith(f"{name}/") for name in beside), beside


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6)
    | st.sampled_from(["../x", "/etc/passwd", OWNED, "etc/nftables.conf", "1.0~rc1", "a" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def descriptions_are_read_or_refused(changes: list[tuple[list[int], Any]], around: int) -> None:
    document: Any = json.loads(releases.describe("0.2.0", [COMPONENT]).to_json())
    for steps, value in changes:
        spot: Any = document
        for step in steps[:-1]:
            keys = list(spot) if isinstance(spot, dict) else list(range(len(spot))) if isinstance(spot, list) else []
            if not keys or not isinstance(spot[keys[step % len(keys)]], dict | list):
                break
            spot = spot[keys[step % len(keys)]]
        keys = list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        if keys:
            spot[keys[steps[-1] % len(keys)]] = copy.deepcopy(value)
    text = "[" * around + json.dumps(document) + "]" * around
    try:
        release = bundle.parse(text)
    except UpgradeError as refusal:
        assert refusal.fix
        return
    assert all(map(rules.may_replace, release.paths))
    # People are shown it.
    release.to_json().encode()


NAME = st.binary(min_size=1, max_size=10).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
) | st.sampled_from([b"\xff", b"\xfe", "\ufffd".encode(), b"a\\b", b"C:x", b"a\nb", b"-", b"~", b".hidden"])


def packed_folders_hold_every_file(files: dict[bytes, bytes], age: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(root=Path(folder), web_assets=None)
        top = settings.workspace_path / "top"
        top.mkdir(parents=True)
        for name, content in files.items():
            path = top / os.fsdecode(name)
            path.write_bytes(content)
            os.utime(path, (age, age))
        paths = Confinement(settings)
        packed = b"".join(archive.prepare(paths, [str(top)], 10)._blocks)
        with zipfile.ZipFile(io.BytesIO(packed)) as read:
            names = read.namelist()
            assert len(names) == len(set(names)) == len(files)
            assert sorted(map(read.read, names)) == sorted(files.values())
            assert not any(name.startswith("/") or ".." in name.split("/") for name in names)


CHANGED = {"base": st.integers(0, 1), "edits": EDITS, "kept": st.just(1.0) | st.floats(0, 1)}
PROPERTIES = (
    Property(skills_are_taken_or_refused, CHANGED | {"base": st.integers(0, 3)}, SMALL),
    Property(releases_are_found_or_refused, CHANGED, SMALL),
    Property(components_stay_in_their_place, CHANGED | {"packed": st.booleans()}),
    Property(
        descriptions_are_read_or_refused,
        {"changes": st.lists(st.tuples(st.lists(st.integers(0, 20), min_size=1, max_size=4), ANY), max_size=3),
         "around": st.just(0) | st.integers(0, 5000)},
    ),
    Property(
        packed_folders_hold_every_file,
        {"files": st.dictionaries(NAME, st.binary(max_size=20), min_size=1, max_size=6),
         "age": st.integers(-(2**33), 2**34)},
    ),
)  # fmt: skip
