"""What `aisandbox status` and `aisandbox upgrade` tell people about upgrades."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aisandbox.instance import cli, files
from aisandbox.instance.keep.upgrade import follow, worker
from aisandbox.instance.keep.upgrade.services import Services
from aisandbox.instance.keep.upgrade.state import State, Upgrades
from aisandbox.instance.observe import status
from aisandbox.instance.places import Places
from tests.support import appliance, keys
from tests.support.appliance import MANIFEST

STATE = State(
    operation="upgrade",
    from_version="1.2.3",
    to_version="1.3.0",
    items=(),
    units=(),
    ports={},
    new_ports={},
    timeout_s=5,
    release=None,
    former_release=None,
    chat_changes=False,
    detail="ImportError: a name that somebody wrote",
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def upgrades(places: Places) -> Upgrades:
    return Upgrades(places.root, places.data)


def told(places: Places, public: bool = False) -> str:
    return "\n".join(f"{problem} {problem.fix}" for problem in status.compose(places, MANIFEST, public=public).problems)


def run(places: Places, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["--root", str(places.root), "upgrade", *arguments])
    return result.exit_code, result.output


def test_one_under_way_is_shown(places: Places) -> None:
    upgrades(places).save(STATE)
    assert "the upgrade to version 1.3.0 is under way" in told(places)
    assert "is under way (ready)" in run(places, "--status")[1]


def test_one_that_was_undone_is_shown_with_its_cause(places: Places) -> None:
    upgrades(places).save(STATE)
    upgrades(places).finish(STATE, "undone", "The upgrade to 1.3.0 was undone: it crashed.", worker.SILENCE)
    assert "was undone: it crashed. ImportError" in told(places)
    assert "--forget" in told(places)
    assert "ImportError" in run(places, "--status")[1]


def test_strangers_are_not_told_last_words(places: Places) -> None:
    upgrades(places).finish(STATE, "undone", "The upgrade to 1.3.0 was undone: it crashed.")
    assert "it crashed." in told(places, public=True)
    assert "ImportError" not in told(places, public=True)


def test_one_that_succeeded_is_no_problem(places: Places) -> None:
    upgrades(places).finish(STATE, "done", "Version 1.3.0 serves.")
    assert told(places) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"outcome": 5}'])
def test_a_damaged_record_does_not_hide_the_rest(places: Places, text: str) -> None:
    upgrades(places).base.mkdir()
    for file in (upgrades(places).state_file, upgrades(places).result_file):
        file.write_text(text)
    told(places)


@pytest.mark.parametrize("arguments", [(), ("--status", "--forget"), ("/tmp", "--rollback")])
def test_one_thing_at_a_time(places: Places, arguments: tuple[str, ...]) -> None:
    assert run(places, *arguments)[0] == 2


def test_without_a_key_it_says_where_to_put_one(places: Places, tmp_path: Path) -> None:
    code, output = run(places, "/tmp")
    assert code == 1
    assert "--public-key FILE" in output and str(places.etc / "release.pub") in output
    places.etc.mkdir(parents=True, exist_ok=True)
    (places.etc / "release.pub").write_text("no key\n")
    assert "no public key of minisign" in run(places, "/tmp")[1]
    pair = keys.make(tmp_path / "keys")
    (places.etc / "release.pub").write_text(pair.public.read_text())
    assert "the release has no release.json" in run(places, str(tmp_path / "keys"))[1]
    assert "cannot be used" in run(places, "/tmp", "--public-key", "/nonexistent")[1]


class Gone(Services):
    """Systemd that knows no upgrade at work."""

    def active(self, units: object) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(("outcome", "code"), [("done", 0), ("undone", 3), ("broken", 4)])
def test_whoever_follows_gets_all_lines_and_the_outcome(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], outcome: str, code: int
) -> None:
    upgrades = Upgrades(tmp_path, tmp_path / "data")
    upgrades.base.mkdir(parents=True)
    upgrades.log.write_text("Stopping the services.\nVersion 1 serves.\n")
    files.write_json(upgrades.result_file, {"outcome": outcome, "detail": "last words", "fix": "mend it"})
    assert follow.follow(upgrades, Gone()) == code
    output = capsys.readouterr().out
    assert output.startswith("Stopping the services.\nVersion 1 serves.\n")
    assert ("mend it" in output) == (outcome != "done")


def test_whoever_follows_is_told_when_it_was_broken_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "PATIENCE_S", 0.1)
    assert follow.follow(Upgrades(tmp_path, tmp_path / "data"), Gone()) == 1
    assert "systemctl start aisandbox-upgrade.service" in capsys.readouterr().out
