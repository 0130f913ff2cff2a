"""The exchange of two releases, broken off at every single step: afterwards one of them is there, whole."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import aisandbox
from aisandbox.instance.keep.upgrade import prepare, rules, tree
from aisandbox.instance.keep.upgrade.bundle import Release
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.health import Health
from aisandbox.instance.keep.upgrade.state import State
from aisandbox.instance.keep.upgrade.worker import Worker
from aisandbox.manifest import REPOSITORY
from tests.support import keys, releases
from tests.support.exchange import Judge, Quiet
from tests.support.releases import Rig

STEPS = ("rename", "replace", "unlink", "rmdir", "mkdir", "symlink", "link", "fsync", "chmod")
"""Functions of `os` by which the exchange touches the disk."""


TEMPLATES = REPOSITORY / "templates" / "systemd"


class PowerCut(BaseException):
    """Nothing is done from here on."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path / "instance", keys.make(tmp_path / "keys"))
    newer = tmp_path / "newer"
    releases.lay_out(newer, "0.2.0")
    (newer / rules.OPT / "web").mkdir()
    (newer / rules.OPT / "web" / "page.html").write_text("new\n")
    (newer / rules.UNITS / "new.service").write_text("[Unit]\n")
    old = rig.root / rules.UNITS / "old.service"
    old.write_text("[Unit]\n")
    owned = {
        **releases.OWNED,
        "web": (f"{rules.OPT}/web",),
        "system": (*releases.OWNED["system"], f"{rules.UNITS}/new.service"),
    }
    release = releases.pack(newer, tmp_path / "release", "0.2.0", rig.pair, owned)
    retiring = Release(**{**vars(release), "retired": (f"{rules.UNITS}/old.service",)})
    releases.sign(tmp_path / "release", retiring, rig.pair)
    return rig


def again(rig: Rig) -> Path:
    """A third release: other code and another model, and the engine of the second."""
    top = rig.root.parent / "third"
    releases.lay_out(top, "0.2.0")
    opt = top / rules.OPT
    (opt / "release.json").write_text(json.dumps({"version": "0.3.0", "flavour": "cpu"}))
    (opt / "models/guide/config.json").write_text('{"new": true}\n')
    releases.pack(top, rig.root.parent / "release-3", "0.3.0", rig.pair)
    return rig.root.parent / "release-3"


def source(rig: Rig) -> Path:
    return rig.root.parent / "release"


def worker(rig: Rig, *unfit: str) -> Worker:
    return Worker(rig.upgrades, Quiet(), Judge(rig, unfit), rig.root / "run")


def boot(rig: Rig) -> None:
    """What runs at boot."""
    worker(rig).recover()
    worker(rig).restore_database()
    worker(rig).run()


def roll_back(rig: Rig) -> None:
    with rig.upgrades.locked():
        rig.upgrades.save(prepare.rollback_state(rig.instance, rig.upgrades, 5))
    worker(rig).run()


def no_litter(rig: Rig) -> None:
    """Nothing is left but what is meant to be kept."""
    assert rig.upgrades.load() is None
    assert not list(rig.root.rglob("*.aisandbox-upgrade"))
    assert {path.name for path in rig.upgrades.base.iterdir() if path.is_dir()} <= {"download"}
    kept = {rig.upgrades.kept.target} if rig.upgrades.kept else set()
    assert {path.name for path in rig.upgrades.releases.iterdir()} == {rig.upgrades.current.resolve().name, *kept}


def test_there_and_back_and_there_again(rig: Rig) -> None:
    old = rig.digest()
    rig.prepare(source(rig))
    worker(rig).run()
    new = rig.digest()
    assert (rig.version, new != old) == ("0.2.0", True)
    assert not (rig.root / rules.UNITS / "old.service").exists()
    no_litter(rig)
    assert rig.upgrades.result and rig.upgrades.result["outcome"] == "done"
    for version, digest in (("0.1.0", old), ("0.2.0", new)):
        roll_back(rig)
        assert (rig.version, rig.digest()) == (version, digest)
        no_litter(rig)
    assert rig.upgrades.kept and rig.upgrades.kept.to_version == "0.1.0"


def test_services_are_stopped_before_and_started_after(rig: Rig) -> None:
    rig.prepare(source(rig))
    services = Quiet()
    Worker(rig.upgrades, services, Judge(rig), rig.root / "run").run()
    assert services.done == ["stop new.service old.service vllm.service", "settle", "start vllm.service"]


def test_one_that_does_not_serve_is_undone(rig: Rig) -> None:
    old = rig.digest()
    rig.prepare(source(rig))
    worker(rig, "0.2.0").run()
    assert rig.digest() == old
    no_litter(rig)
    result = rig.upgrades.result
    assert result and result["outcome"] == "undone"
    assert "vllm.service does not start" in result["message"] and "0.1.0 serves again" in result["message"]
    assert result["detail"] == "ImportError: no"


def test_a_rollback_that_does_not_serve_is_undone_and_can_be_repeated(rig: Rig) -> None:
    rig.prepare(source(rig))
    worker(rig).run()
    new = rig.digest()
    with rig.upgrades.locked():
        rig.upgrades.save(prepare.rollback_state(rig.instance, rig.upgrades, 5))
    worker(rig, "0.1.0").run()
    assert (rig.version, rig.digest()) == ("0.2.0", new)
    no_litter(rig)
    roll_back(rig)
    assert rig.version == "0.1.0"


def test_when_not_even_the_former_serves_it_is_said(rig: Rig) -> None:
    rig.prepare(source(rig))
    worker(rig, "0.1.0", "0.2.0").run()
    assert rig.version == "0.1.0"
    result = rig.upgrades.result
    assert result and (result["outcome"], result["fix"]) == ("broken", "sudo aisandbox doctor")


def test_a_second_one_has_to_wait(rig: Rig) -> None:
    rig.prepare(source(rig))
    with pytest.raises(UpgradeError, match="under way"):
        rig.prepare(source(rig))


def test_there_is_no_way_back_from_the_first(rig: Rig) -> None:
    with pytest.raises(UpgradeError, match="no earlier release"):
        prepare.rollback_state(rig.instance, rig.upgrades, 5)


def test_forgetting_frees_the_disk(rig: Rig) -> None:
    rig.prepare(source(rig))
    worker(rig).run()
    new = rig.digest()
    assert prepare.disk_use(rig.upgrades) > 0
    assert prepare.forget(rig.upgrades) > 0
    assert prepare.disk_use(rig.upgrades) == 0
    assert (rig.digest(), rig.upgrades.kept, rig.upgrades.result) == (new, None, None)


class Disk:
    """Counts what is done to the disk, and cuts the power before a given step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: int | None = None, overlay: bool = False) -> None:
        self.steps = 0
        self._last = last
        self._overlay = overlay
        for name in STEPS:
            monkeypatch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.steps += 1
            if self._last is not None and self.steps > self._last:
                raise PowerCut
            if self._overlay and function.__name__ == "rename" and self._lower(Path(arguments[0])):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            return function(*arguments, **options)

        return counted

    @staticmethod
    def _lower(path: Path) -> bool:
        """Whether an overlay would refuse to rename it: a folder as it came with the image."""
        folder = path.is_dir() and not path.is_symlink()
        return folder and (path / "aisandbox").exists() and "releases" not in path.parts


def cut(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], last: int, overlay: bool) -> bool:
    """Do it until the power is cut; whether it was."""
    with monkeypatch.context() as context:
        Disk(context, last, overlay)
        try:
            act()
        except PowerCut:
            return True
    return False


@pytest.mark.parametrize("overlay", [False, True], ids=["renames", "copies"])
@pytest.mark.parametrize("journey", ["upgrade", "failing upgrade", "rollback", "second upgrade"])
def test_a_power_cut_at_any_step_leaves_one_whole_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rig: Rig, journey: str, overlay: bool
) -> None:
    # Hundreds of runs: each disk write is a step here, and none waits for the disk.
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    whole = {"0.1.0": rig.digest()}
    unfit = ("0.2.0",) if journey == "failing upgrade" else ()
    outcomes, last, done = set(), 0, False
    begun, backup = tmp_path / "begun", rig.root.rename(tmp_path / "backup")

    def restore(copy: Path) -> None:
        tree.remove(rig.root)
        shutil.copytree(copy, rig.root, symlinks=True)

    restore(backup)
    rig.prepare(source(rig))
    rig.root.rename(begun)
    restore(begun)
    worker(rig).run()
    whole[rig.version] = rig.digest()
    if journey == "rollback":
        with rig.upgrades.locked():
            rig.upgrades.save(prepare.rollback_state(rig.instance, rig.upgrades, 5))
        tree.remove(begun)
        rig.root.rename(begun)
    if journey == "second upgrade":
        # It exchanges a folder of the image's own, and shares others with the release before.
        rig.prepare(again(rig))
        tree.remove(begun)
        rig.root.rename(begun)
        restore(begun)
        worker(rig).run()
        whole[rig.version] = rig.digest()
    while not done:
        restore(begun)
        cut_off = cut(monkeypatch, worker(rig, *unfit).run, last, overlay)
        # The power fails a second time, while the first cut is being mended.
        if cut_off and last % 3 == 0:
            cut(monkeypatch, lambda: boot(rig), last % 17, overlay)
        boot(rig)
        version = rig.version
        assert rig.digest() == whole[version], f"cut before step {last + 1}"
        no_litter(rig)
        result = rig.upgrades.result
        assert result and version in result["message"] and result["outcome"] in ("done", "undone")
        outcomes.add(version)
        if last % 5 == 0 and (version != "0.1.0" or journey == "rollback"):
            # The way back is whole, too.
            assert rig.upgrades.kept
            roll_back(rig)
            assert rig.digest() == whole[rig.version] and rig.version != version
        done, last = not cut_off, last + (2 if overlay else 1)
    assert last > 20
    possible = {"failing upgrade": {"0.1.0"}, "second upgrade": {"0.2.0", "0.3.0"}}
    assert outcomes == possible.get(journey, {"0.1.0", "0.2.0"})


def database(rig: Rig, *columns: str) -> None:
    path = rig.upgrades.database
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS chat (title TEXT)")
        for column in columns:
            connection.execute(f"ALTER TABLE chat ADD COLUMN {column} TEXT")


def keep(rig: Rig, title: str) -> None:
    with closing(sqlite3.connect(rig.upgrades.database)) as connection, connection:
        connection.execute("INSERT INTO chat (title) VALUES (?)", (title,))


def history(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT title FROM chat")}


def with_chat(state: State, rig: Rig) -> None:
    """As if the chat page's environment were among what is exchanged."""
    state.chat_changes = True
    rig.upgrades.save(state)


@pytest.mark.parametrize("migrates", [False, True])
def test_chats_survive_both_ways(rig: Rig, migrates: bool) -> None:
    database(rig)
    keep(rig, "before")
    os.chown(rig.upgrades.database, 971, 971)
    with_chat(rig.prepare(source(rig)), rig)
    worker(rig).run()
    assert history(rig.upgrades.database) == {"before"}
    if migrates:
        database(rig, "folder")
    keep(rig, "after")
    roll_back(rig)
    assert history(rig.upgrades.database) == ({"before"} if migrates else {"before", "after"})
    assert rig.upgrades.database.stat().st_uid == 971
    if migrates:
        log = rig.upgrades.log.read_text()
        assert "changed the form of the chat page's database" in log
        assert str(rig.upgrades.backups / "webui-0.2.0.db") in log
        assert history(rig.upgrades.backups / "webui-0.2.0.db") == {"before", "after"}
        assert rig.upgrades.backups.stat().st_mode & 0o077 == 0


def test_a_migration_that_was_undone_by_a_power_cut_is_undone_in_the_database(rig: Rig) -> None:
    database(rig)
    keep(rig, "before")
    with_chat(rig.prepare(source(rig)), rig)

    class Migrating(Quiet):
        def start(self, units: Sequence[str]) -> None:
            database(rig, "folder")
            raise PowerCut

    with pytest.raises(PowerCut):
        Worker(rig.upgrades, Migrating(), Judge(rig), rig.root / "run").run()
    # Early at boot the data volume may not be there yet: the database comes later, before the chat page starts.
    worker(rig).recover()
    assert rig.version == "0.1.0"
    worker(rig).restore_database()
    database(rig, "folder")  # fails if the column were there already
    worker(rig).run()
    no_litter(rig)


def test_a_link_in_place_of_the_database_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    rig.upgrades.database.parent.mkdir(parents=True)
    rig.upgrades.database.symlink_to(secret)
    with_chat(rig.prepare(source(rig)), rig)
    worker(rig).run()
    assert not list(rig.data.glob("upgrade/*"))


def test_the_worker_runs_without_anything_of_ours_around_it(rig: Rig) -> None:
    prepare.place_tool(rig.upgrades, rig.instance, Path(aisandbox.__file__).parent)
    places = json.loads((rig.upgrades.base / "places.json").read_text())
    assert places == {"run": str(rig.root / "run"), "data": str(rig.data)}
    code = "import aisandbox; from aisandbox.instance.keep.upgrade import follow, worker; print(aisandbox.__file__)"
    command = ["/usr/bin/python3", "-S", "-c", code]
    environment = {"PYTHONPATH": str(rig.upgrades.tool), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(rig.upgrades.tool))
    for unit in ("aisandbox-upgrade", "aisandbox-upgrade-recover"):
        # Units of releases since 0.1 run the tools of others, and the other way round: the name must stay.
        steps = re.findall(r"python3 -m (\S+) (\w+)", (TEMPLATES / f"{unit}.service.j2").read_text())
        assert {module for module, _ in steps} == {"aisandbox.instance.upgrade.worker"}
        for module, step in steps:
            command = ["/usr/bin/python3", "-S", "-m", module, step]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/", check=False)
            assert result.returncode == 0, result.stderr


def test_what_is_lost_has_a_name() -> None:
    before = Health(True, True, True, ("org/name",), True, ("old.service",), "")
    cases: dict[str, dict[str, Any]] = {
        "the engine did not answer": {"completion": False},
        "the API and the chat page did not answer": {"api": False, "chat": False},
        "the sandbox did not answer": {"sandbox": False},
        "org/name is not served any more": {"models": ("aisandbox/guide",)},
        "new.service has failed": {"failed": ("old.service", "new.service")},
        "no such layer": {"complaint": "no such layer"},
        "": {"models": ("another", "org/name")},
    }
    for words, change in cases.items():
        assert Health(**{**vars(before), **change}).missing(before) == words
    # What did not answer before need not answer after.
    dark = Health(False, False, False, (), False, (), "broken")
    assert dark.missing(dark) == ""
