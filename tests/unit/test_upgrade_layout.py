"""How releases lie on the disk of an instance: what they share, what is removed, and what earlier versions left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from aisandbox.instance.keep.upgrade import prepare, rules, tree
from aisandbox.instance.keep.upgrade.services import Unfit
from aisandbox.instance.keep.upgrade.worker import Worker
from tests.support import keys, releases
from tests.support.exchange import Judge, Quiet
from tests.support.releases import Rig

LIB, VLLM, MODELS = f"{rules.OPT}/lib", f"{rules.OPT}/envs/vllm", f"{rules.OPT}/models"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "instance", keys.make(tmp_path / "keys"))


def release(rig: Rig, version: str, **texts: str) -> Path:
    """A release in which our own code is that of `version`, and all else of 0.1.0 but for these texts."""
    top = rig.root.parent / version
    releases.lay_out(top, "0.1.0")
    (top / LIB / "aisandbox/code.py").write_text(f"VERSION = '{version}'\n")
    (top / rules.OPT / "release.json").write_text(json.dumps({"version": version, "flavour": "cpu"}))
    for name, text in texts.items():
        path = {"engine": VLLM + "/lib/engine.py", "model": MODELS + "/guide/config.json", "unit": releases.UNIT}[name]
        (top / path).write_text(text)
    releases.pack(top, rig.root.parent / f"release-{version}", version, rig.pair)
    return rig.root.parent / f"release-{version}"


def upgrade(rig: Rig, source: Path, *unfit: str) -> None:
    rig.prepare(source)
    Worker(rig.upgrades, Quiet(), Judge(rig, unfit), rig.root / "run").run()


def roll_back(rig: Rig) -> None:
    with rig.upgrades.locked():
        rig.upgrades.save(prepare.rollback_state(rig.instance, rig.upgrades, 5))
    Worker(rig.upgrades, Quiet(), Judge(rig), rig.root / "run").run()


def folders(rig: Rig) -> set[str]:
    return {path.name for path in rig.upgrades.releases.iterdir()}


def model(rig: Rig) -> str:
    return (rig.root / MODELS / "guide/config.json").read_text()


def engine(rig: Rig) -> str:
    return (rig.root / VLLM / "lib/engine.py").read_text()


def test_only_what_changes_is_moved_and_everything_keeps_its_path(rig: Rig) -> None:
    inode = (rig.root / LIB / "aisandbox/same.py").stat().st_ino
    upgrade(rig, release(rig, "0.2.0"))
    assert str(rig.upgrades.current.readlink()) == "releases/0.2.0"
    assert str((rig.root / LIB).readlink()) == f"current/{LIB}"
    assert not (rig.root / VLLM).is_symlink() and not (rig.root / MODELS).is_symlink()
    assert (rig.upgrades.releases / "0.1.0" / LIB / "aisandbox/same.py").stat().st_ino == inode
    upgrade(rig, release(rig, "0.3.0", engine="newer\n"))
    assert str((rig.root / VLLM).readlink()) == f"../current/{VLLM}"
    assert engine(rig) == "newer\n"


def test_a_release_shares_what_it_has_in_common_with_the_one_before(rig: Rig) -> None:
    upgrade(rig, release(rig, "0.2.0", engine="newer\n"))
    inode = (rig.root / VLLM / "lib/engine.py").stat().st_ino
    for version in ("0.3.0", "0.4.0", "0.5.0"):
        rig.said.clear()
        upgrade(rig, release(rig, version, engine="newer\n"))
        assert not any("env-vllm" in line for line in rig.said)
    assert (engine(rig), (rig.root / VLLM / "lib/engine.py").stat().st_ino) == ("newer\n", inode)
    # Of 0.2.0 nothing is left but what the others share.
    assert folders(rig) == {"0.2.0", "0.4.0", "0.5.0"}
    assert not (rig.upgrades.releases / "0.2.0" / LIB).exists()
    roll_back(rig)
    assert (rig.version, engine(rig)) == ("0.4.0", "newer\n")
    assert prepare.forget(rig.upgrades) > 0
    assert folders(rig) == {"0.2.0", "0.4.0"}
    assert (rig.version, engine(rig)) == ("0.4.0", "newer\n")


def test_the_way_back_stays_whole_when_more_is_moved_later(rig: Rig) -> None:
    image = rig.digest()
    upgrade(rig, release(rig, "0.2.0"))
    upgrade(rig, release(rig, "0.3.0", model='{"new": true}\n'), "0.3.0")
    assert (rig.version, model(rig), (rig.root / MODELS).is_symlink()) == ("0.2.0", "{}\n", True)
    roll_back(rig)
    assert (rig.version, model(rig), rig.digest()) == ("0.1.0", "{}\n", image)


def test_the_same_version_again_mends_what_was_damaged(rig: Rig) -> None:
    source = release(rig, "0.2.0")
    upgrade(rig, source)
    whole = rig.digest()
    (rig.root / LIB / "aisandbox/same.py").unlink()
    upgrade(rig, source)
    assert (rig.digest(), rig.upgrades.current.resolve().name) == (whole, "0.2.0-2")


def test_what_a_release_does_without_goes_and_comes_back_with_the_one_before(rig: Rig) -> None:
    web = rig.root / rules.OPT / "web"
    top = rig.root.parent / "0.2.0"
    source = release(rig, "0.2.0")
    (top / rules.OPT / "web").mkdir()
    (top / rules.OPT / "web/page.html").write_text("page\n")
    shutil.rmtree(source)
    releases.pack(top, source, "0.2.0", rig.pair, {**releases.OWNED, "web": (f"{rules.OPT}/web",)})
    upgrade(rig, source)
    upgrade(rig, release(rig, "0.3.0"))
    assert not tree.exists(web)
    roll_back(rig)
    assert (web / "page.html").read_text() == "page\n"
    roll_back(rig)
    assert not tree.exists(web)


def test_what_the_owner_changed_outside_opt_comes_back_with_its_release(rig: Rig) -> None:
    (rig.root / releases.UNIT).write_text("[Unit]\nDescription=mine\n")
    upgrade(rig, release(rig, "0.2.0", unit="[Unit]\nDescription=theirs\n"))
    assert "theirs" in (rig.root / releases.UNIT).read_text()
    roll_back(rig)
    assert "mine" in (rig.root / releases.UNIT).read_text()


def test_services_that_do_not_stop_leave_everything_as_it_is(rig: Rig) -> None:
    class Stubborn(Quiet):
        def stop(self, units: Sequence[str]) -> None:
            raise Unfit("systemctl stop failed")

    before = rig.digest()
    rig.prepare(release(rig, "0.2.0", unit="[Unit]\n"))
    Worker(rig.upgrades, Stubborn(), Judge(rig), rig.root / "run").run()
    assert rig.digest() == before
    result = rig.upgrades.result
    assert result and result["outcome"] == "undone" and "systemctl stop failed" in result["message"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_services_can_read_it_whatever_the_umask(rig: Rig) -> None:
    source = release(rig, "0.2.0", engine="newer\n")
    with umask(0o077):
        upgrade(rig, source)
    for path in (LIB, VLLM):
        folder = (rig.root / path).resolve()
        while folder != rig.root:
            assert folder.stat().st_mode & 0o055 == 0o055, folder
            folder = folder.parent


def as_version_0_1_would(rig: Rig, version: str, source: Path) -> None:
    """An upgrade in the manner of version 0.1: paths change places, and what was there is kept in `previous`."""
    kept, paths = rig.upgrades.base / "previous", (LIB, f"{rules.OPT}/release.json", VLLM)
    former = rig.version
    for path in paths:
        old = kept / "root" / path
        old.parent.mkdir(parents=True, exist_ok=True)
        (rig.root / path).rename(old)
        origin = source / path
        if origin.is_dir():
            shutil.copytree(origin, rig.root / path, symlinks=True)
        else:
            shutil.copy2(origin, rig.root / path)
    items = [{"path": path, "tree": True, "old": True, "new": True} for path in paths]
    record = {"version": former, "ports": releases.PORTS, "items": items, "units": [], "database": None,
              "release": None, "chat_changes": False}  # fmt: skip
    (kept / "previous.json").write_text(json.dumps(record))
    assert rig.version == version


def test_what_version_0_1_has_kept_can_be_rolled_back_to(rig: Rig) -> None:
    image = rig.digest()
    release(rig, "0.2.0", engine="newer\n")
    as_version_0_1_would(rig, "0.2.0", rig.root.parent / "0.2.0")
    newer = rig.digest()
    roll_back(rig)
    assert (rig.version, rig.digest()) == ("0.1.0", image)
    assert not (rig.upgrades.base / "previous").exists()
    roll_back(rig)
    assert (rig.version, rig.digest()) == ("0.2.0", newer)


def test_version_0_1_upgrades_what_was_rolled_back_to_it(rig: Rig) -> None:
    """Of links it knows nothing; it moves them aside like anything else."""
    image = rig.digest()
    upgrade(rig, release(rig, "0.2.0", engine="newer\n"))
    roll_back(rig)
    release(rig, "0.3.0", engine="newest\n")
    as_version_0_1_would(rig, "0.3.0", rig.root.parent / "0.3.0")
    newest = rig.digest()
    roll_back(rig)
    assert (rig.version, rig.digest()) == ("0.1.0", image)
    roll_back(rig)
    assert (rig.version, rig.digest()) == ("0.3.0", newest)


def test_a_link_of_the_image_that_leads_elsewhere_is_no_link_of_ours(rig: Rig) -> None:
    path = rig.root / rules.OPT / "web"
    path.symlink_to("models")
    assert not tree.is_own_link(rig.root, f"{rules.OPT}/web")
    assert tree.measure(rig.root, [f"{rules.OPT}/web"]).entries == 1
