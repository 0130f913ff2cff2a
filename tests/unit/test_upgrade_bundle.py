"""Releases that an instance must refuse before it touches anything, however well they are signed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aisandbox.instance.keep.upgrade import bundle, prepare, rules, tree
from aisandbox.instance.keep.upgrade.bundle import Component, Release
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.source import open_source
from tests.support import keys, releases
from tests.support.keys import Pair
from tests.support.releases import Content, Rig

LIB = f"{rules.OPT}/lib"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return keys.make(tmp_path / "keys")


@pytest.fixture
def rig(tmp_path: Path, pair: Pair) -> Rig:
    return Rig(tmp_path / "instance", pair)


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Files of version 0.2.0."""
    root = tmp_path / "newer"
    releases.lay_out(root, "0.2.0")
    return root


@pytest.fixture
def bundled(tmp_path: Path, newer: Path, pair: Pair) -> Path:
    releases.pack(newer, tmp_path / "release", "0.2.0", pair)
    return tmp_path / "release"


def untouched(rig: Rig) -> Callable[[], None]:
    """A check that nothing but the folder of upgrades has changed since."""
    before = rig.digest()

    def check() -> None:
        assert rig.digest() == before
        assert rig.upgrades.load() is None
        assert not list(rig.upgrades.releases.glob("*"))

    return check


def refused(rig: Rig, source: Path, words: str) -> UpgradeError:
    check = untouched(rig)
    with pytest.raises(UpgradeError, match=words) as caught:
        rig.prepare(source)
    assert caught.value.fix
    check()
    return caught.value


def test_only_what_differs_is_fetched_and_unpacked(rig: Rig, bundled: Path) -> None:
    (next(bundled.glob("models-*"))).unlink()
    state = rig.prepare(bundled)
    assert not any("models" in line for line in rig.said)
    assert set(state.paths) == {path for name, paths in releases.OWNED.items() if name != "models" for path in paths}
    assert state.units == ("vllm.service",)
    unpacked = rig.upgrades.releases / state.target
    assert (unpacked / LIB / "aisandbox/code.py").read_text() == "VERSION = '0.2.0'\n"
    assert rig.version == "0.1.0"


def test_the_same_files_give_the_same_release(tmp_path: Path, newer: Path, pair: Pair) -> None:
    for out in ("one", "two"):
        releases.pack(newer, tmp_path / out, "0.2.0", pair)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("one", "two"))
    assert one == two


def test_an_unsigned_one(rig: Rig, bundled: Path) -> None:
    (bundled / "release.json.minisig").unlink()
    refused(rig, bundled, "has no release.json.minisig")


def test_one_signed_by_somebody_else(rig: Rig, bundled: Path, tmp_path: Path) -> None:
    rig.pair = keys.make(tmp_path / "other")
    assert "--public-key" in refused(rig, bundled, "not signed by the key").fix


def test_a_description_that_was_changed_after_signing(rig: Rig, bundled: Path) -> None:
    path = bundled / "release.json"
    path.write_text(path.read_text().replace("Better.", "Worse."))
    refused(rig, bundled, "not signed by the key")


def test_an_archive_that_was_changed_after_signing(rig: Rig, bundled: Path) -> None:
    archive = next(bundled.glob("appliance-*"))
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    refused(rig, bundled, "is not what was signed")


def test_an_archive_that_was_cut_off(rig: Rig, bundled: Path) -> None:
    archive = next(bundled.glob("env-vllm-*"))
    archive.write_bytes(archive.read_bytes()[:-20])
    refused(rig, bundled, "is not what was signed")


def test_a_missing_archive(rig: Rig, bundled: Path) -> None:
    next(bundled.glob("system-*")).unlink()
    refused(rig, bundled, "has no system-")


def test_one_that_leaves_out_what_the_instance_has_in_another_form(rig: Rig, bundled: Path, pair: Pair) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    parts = [replace(c, archive=None) if c.name in ("models", "env-vllm") else c for c in release.components]
    releases.sign(bundled, replace(release, components=tuple(parts)), pair)
    assert "full release" in refused(rig, bundled, "differs in env-vllm$").fix


def test_content_other_than_described(rig: Rig, bundled: Path, pair: Pair) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    lying = [replace(c, digest="0" * 64) if c.name == "appliance" else c for c in release.components]
    next(bundled.glob("appliance-*")).rename(bundled / f"appliance-{'0' * 16}.tar.zst")
    releases.sign(bundled, replace(release, components=tuple(lying)), pair)
    refused(rig, bundled, "not what its release says")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"product": "other"}, "release of other"),
        ({"flavour": "cuda"}, "flavour cuda"),
        ({"architecture": "riscv64"}, "for riscv64"),
        ({"os": {"family": "debian", "version": "13"}}, "for debian 13"),
        ({"upgrade_from": "0.1.5"}, "reached from 0.1.5 on"),
        ({"version": "0.0.9"}, "is older than 0.1.0"),
        ({"packages": {"no-such-package": ""}}, "no-such-package"),
        ({"packages": {"dpkg": "999"}}, "too old: dpkg"),
    ],
)
def test_one_for_other_instances(rig: Rig, bundled: Path, pair: Pair, change: dict[str, object], words: str) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    releases.sign(bundled, Release(**{**vars(release), **change}), pair)
    error = refused(rig, bundled, words)
    if "packages" in change:
        assert error.fix.startswith("sudo apt-get update && sudo apt-get install ")


@pytest.mark.parametrize(("own", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_one_of_the_other_flavour_is_refused_before_anything_is_fetched(
    rig: Rig, bundled: Path, pair: Pair, own: str, other: str
) -> None:
    lay = rig.root / rules.OPT / "release.json"
    lay.write_text(json.dumps({"version": "0.1.0", "flavour": own}))
    release = bundle.parse((bundled / "release.json").read_bytes())
    releases.sign(bundled, replace(release, flavour=other), pair)
    error = refused(rig, bundled, f"has the flavour {other}, this instance the flavour {own}")
    assert f"aisandbox-0.2.0-{own} of the same vendor" in error.fix and "attach the data volume" in error.fix
    assert not list(rig.upgrades.download.iterdir())
    assert rig.said == []


def test_an_older_one_when_that_is_wanted(rig: Rig, bundled: Path, pair: Pair) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    releases.sign(bundled, replace(release, version="0.0.9"), pair)
    assert rig.prepare(bundled, allow_downgrade=True).to_version == "0.0.9"


@pytest.mark.parametrize(
    "path",
    ["etc/passwd", "etc/aisandbox/options.yaml", "root/.ssh/authorized_keys", "/etc/nginx/x", "etc/nginx/../passwd",
     "opt/aisandbox/../../etc/passwd", "opt/aisandbox/upgrade/tool", "opt/aisandbox", "opt/aisandbox/envs",
     "opt/aisandbox/lib/aisandbox", "opt/aisandbox/envs/vllm/bin", "opt/aisandbox/current", "opt/aisandbox/releases/1",
     "usr/bin/sudo", "var/lib/aisandbox/secrets", "etc/nginx/", "", "etc/systemd/system/a\nb.service"],
)  # fmt: skip
def test_one_that_claims_what_no_release_may(rig: Rig, bundled: Path, pair: Pair, path: str) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    first, *others = release.components
    for claiming in (
        replace(release, retired=(path,)),
        replace(release, components=(replace(first, paths=(path,)), *others)),
    ):
        releases.sign(bundled, claiming, pair)
        refused(rig, bundled, "which no release may replace")


def test_two_components_that_claim_the_same(rig: Rig, bundled: Path, pair: Pair) -> None:
    release = bundle.parse((bundled / "release.json").read_bytes())
    for paths in ((LIB,), ("etc/nginx/a", "etc/nginx/a/b")):
        twice = Component("again", paths, "a" * 64, 1, 1, release.components[0].archive)
        releases.sign(bundled, replace(release, components=(*release.components, twice)), pair)
        refused(rig, bundled, "twice")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"schema": 1}',
        '{"schema": 2}',
        '{"schema": 1, "product": 5}',
        "\xff",
        "1" * 5000,
        "[" * 100_000,
    ],
)
def test_a_description_that_is_none(text: str) -> None:
    with pytest.raises(UpgradeError):
        bundle.parse(text.encode("latin-1"))


@pytest.mark.parametrize(
    "change",
    [{"name": "../x"}, {"name": ""}, {"digest": "x"}, {"bytes": -1}, {"bytes": True}, {"bytes": "5"}, {"entries": 1e3},
     {"paths": "opt/aisandbox/lib"}, {"paths": [5]}, {"archive": {"sha256": "0"}}, {"archive": 5},
     {"archive": {"sha256": "0" * 64, "bytes": 1 << 60}}],
)  # fmt: skip
def test_a_component_that_is_none(bundled: Path, change: dict[str, object]) -> None:
    value = json.loads((bundled / "release.json").read_text())
    value["components"][0] |= change
    with pytest.raises(UpgradeError):
        bundle.parse(json.dumps(value))


@pytest.mark.parametrize("note", ["\x1b[2J", "two\nlines", "\ud800"])
def test_notes_are_lines_that_a_terminal_can_show(bundled: Path, note: str) -> None:
    value = json.loads((bundled / "release.json").read_text())
    value["notes"] = [note]
    with pytest.raises(UpgradeError):
        bundle.parse(json.dumps(value))


def entry(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


def holding(*entries: tarfile.TarInfo) -> Content:
    def content(archive: tarfile.TarFile) -> None:
        archive.addfile(entry(LIB, tarfile.DIRTYPE))
        for info in entries:
            archive.addfile(info, io.BytesIO(b"x" * info.size))

    return content


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("etc/passwd")], "outside the component"),
        ([entry(f"{LIB}/../../../etc/passwd")], "outside the component"),
        ([entry(f"/{LIB}/x")], "outside the component"),
        ([entry(f"{LIB}/sub/x")], "outside the component"),
        ([entry(f"{LIB}/a", tarfile.SYMTYPE, linkname="."), entry(f"{LIB}/a/x")], "outside the component"),
        ([entry(f"{LIB}/a", tarfile.SYMTYPE, linkname="/etc")], "a link to /etc"),
        ([entry(f"{LIB}/a", tarfile.SYMTYPE, linkname="../../../etc")], "leads out of its place"),
        ([entry(f"{LIB}/a", tarfile.SYMTYPE, linkname="../web/a")], "leads out of its place"),
        ([entry(f"{LIB}/a", tarfile.SYMTYPE, linkname="/usr/bin/python3/../../../etc")], "a link to"),
        ([entry(f"{LIB}/a", tarfile.LNKTYPE, linkname="etc/shadow")], "neither file"),
        ([entry(f"{LIB}/a", tarfile.CHRTYPE, devmajor=1, devminor=1)], "neither file"),
        ([entry(f"{LIB}/a", tarfile.BLKTYPE)], "neither file"),
        ([entry(f"{LIB}/a", tarfile.FIFOTYPE)], "neither file"),
        ([entry(f"{LIB}/a", mode=0o4755)], "setuid"),
        ([entry(f"{LIB}/a", mode=0o2755)], "setuid"),
        ([entry(f"{LIB}/a", mode=0o666)], "written by others"),
        ([entry(f"{LIB}/a", uid=970)], "belongs to 970:0"),
        ([entry(f"{LIB}/a", gid=42)], "belongs to 0:42"),
        ([entry(f"{LIB}/{number}") for number in range(101)], "more than"),
        ([entry(f"{LIB}/a", size=(1 << 20) + 1)], "more than"),
    ],
)
def test_an_archive_that_reaches_beyond_its_component(
    rig: Rig, tmp_path: Path, pair: Pair, entries: list[tarfile.TarInfo], words: str
) -> None:
    releases.pack_by_hand(tmp_path / "evil", pair, holding(*entries))
    refused(rig, tmp_path / "evil", words)


def test_a_file_twice(rig: Rig, tmp_path: Path, pair: Pair) -> None:
    releases.pack_by_hand(tmp_path / "evil", pair, holding(entry(f"{LIB}/a"), entry(f"{LIB}/a")))
    refused(rig, tmp_path / "evil", "File exists")


def test_an_archive_that_is_none(rig: Rig, tmp_path: Path, pair: Pair) -> None:
    release = releases.pack_by_hand(tmp_path / "evil", pair, holding())
    component = release.components[0]
    path = tmp_path / "evil" / component.file
    path.write_bytes(b"this is no archive")
    packed = bundle.Archive(tree.file_digest(path), path.stat().st_size)
    releases.sign(tmp_path / "evil", replace(release, components=(replace(component, archive=packed),)), pair)
    refused(rig, tmp_path / "evil", "is damaged")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_seen_beforehand(small_disk: Path, pair: Pair, bundled: Path) -> None:
    rig = Rig(small_disk / "instance", pair)
    assert "--forget" in refused(rig, bundled, "GB free").fix


def test_a_disk_that_fills_up_meanwhile(
    small_disk: Path, pair: Pair, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(small_disk / "instance", pair)
    (newer / rules.OPT / "envs/vllm/large").write_bytes(os.urandom(3 << 20))
    releases.pack(newer, tmp_path / "release", "0.2.0", pair)
    monkeypatch.setattr(prepare, "check_space", lambda *_: None)
    assert "make room" in refused(rig, tmp_path / "release", "No space left").fix


def test_a_service_that_its_owner_has_disabled_stays_so(rig: Rig, bundled: Path) -> None:
    (rig.root / releases.LINK).unlink()
    assert releases.LINK not in rig.prepare(bundled).paths


def test_what_was_not_touched_is_not_read_again(
    rig: Rig, bundled: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = prepare.read_release(open_source(str(bundled)), pair.line, rig.upgrades.download)
    first = prepare.compare(release, rig.upgrades, rig.said.append)
    read = list[Path]()
    digest = tree.file_digest

    def noted(path: Path, progress: tree.Progress | None = None) -> str:
        read.append(path)
        return digest(path, progress)

    monkeypatch.setattr(tree, "file_digest", noted)
    assert prepare.compare(release, rig.upgrades, rig.said.append) == first
    assert read == []
    changed = rig.root / rules.OPT / "models/guide/config.json"
    changed.write_text("{ }\n")
    assert {c.name for c in prepare.compare(release, rig.upgrades, rig.said.append).changed} >= {"models"}
    assert read == [changed]


def test_a_package_that_is_held_counts_as_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {
        "nvidia-driver-cuda": "hold ok installed",
        "zstd": "install ok installed",
        "old": "deinstall ok config-files",
    }
    rows = "Package: {}\nStatus: {}\nVersion: 1\nArchitecture: amd64\nMaintainer: T <t@example.com>\nDescription: t\n"
    (tmp_path / "status").write_text("\n".join(rows.format(name, state) for name, state in states.items()))
    monkeypatch.setenv("DPKG_ADMINDIR", str(tmp_path))
    assert prepare._missing_packages(dict.fromkeys([*states, "absent"], "")) == ["absent", "old"]
