"""Applying and changing the choice."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from aisandbox.instance import files
from aisandbox.instance.choose import configure, editing, options
from aisandbox.instance.choose.options import InvalidOptionError
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.places import Places
from aisandbox.instance.run import rendering, services
from tests.support import appliance
from tests.support.appliance import GUIDE, MANIFEST

TOKEN = "hf_abcdefgh12345678"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_run_writes_everything_and_the_second_nothing(places: Places) -> None:
    first = configure.apply(places, MANIFEST)
    assert {"hf_token", "open-webui.env", "resolved.json"} <= set(first.changed)
    assert configure.apply(places, MANIFEST).changed == ()
    status = files.read_json(places.status("configure"))
    assert status
    assert (status["state"], status["message"]) == ("done", f"Configured to serve {GUIDE}.")


def test_only_root_can_read_what_is_secret(places: Places) -> None:
    appliance.options(places, f"hf_token: {TOKEN}\n")
    configure.apply(places, MANIFEST)
    for path in (places.hf_token, places.etc / "open-webui.env", *places.secrets.iterdir()):
        assert mode(path) == 0o600, path
    assert {mode(places.secrets), mode(places.hf_token.parent)} == {0o700}
    assert places.hf_token.read_text() == TOKEN
    assert {mode(places.resolved), mode(places.status("configure"))} == {0o644}
    assert all(TOKEN not in path.read_text() for path in places.run.rglob("*.json"))


def test_secrets_are_generated_once_and_differ(places: Places, tmp_path: Path) -> None:
    configure.apply(places, MANIFEST)
    first = {path.name: path.read_text() for path in places.secrets.iterdir()}
    configure.apply(places, MANIFEST)
    assert {path.name: path.read_text() for path in places.secrets.iterdir()} == first
    assert set(first) == set(configure.SECRETS)
    assert len(set(first.values())) == len(first)
    assert all(len(value.strip()) >= 32 for value in first.values())


def test_the_chat_page_follows_the_deployment(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\nserved_name: mine\n")
    configure.apply(places, MANIFEST)
    environment = (places.etc / "open-webui.env").read_text()
    assert re.search(r"^DEFAULT_MODELS=.*mine", environment, re.MULTILINE)
    assert (places.secrets / "admin_password").read_text().strip() in environment


def test_bad_input_is_recorded_and_the_rest_applied(places: Places) -> None:
    appliance.options(places, "model: typo\nserved_name: mine\n")
    outcome = configure.apply(places, MANIFEST)
    assert (outcome.deployment.model, outcome.deployment.serving.served_names) == (GUIDE, ("mine",))
    status = files.read_json(places.status("configure"))
    assert status
    assert status["state"] == "failed"
    assert "'typo'" in status["message"]
    assert "aisandbox configure" in status["fix"]


def test_an_unforeseen_failure_still_leaves_a_deployment(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "read", lambda *_: 1 / 0)
    assert configure.apply_safely(places, MANIFEST).deployment.model == GUIDE
    planned = Deployment.load(places.resolved)
    assert planned and "ZeroDivisionError" in planned.problems[0].reason


def test_the_services_to_restart_are_those_that_run_on_what_changed(places: Places) -> None:
    configure.apply(places, MANIFEST)
    appliance.options(places, f"hf_token: {TOKEN}\n")
    outcome = configure.apply(places, MANIFEST)
    assert configure.services_to_restart(places, outcome) == (services.MODEL,)
    appliance.options(places, "served_name: mine\n")
    outcome = configure.apply(places, MANIFEST)
    assert set(configure.services_to_restart(places, outcome)) == {services.MODEL, services.OPEN_WEBUI}


@pytest.mark.parametrize("service", ["model", "engine"])
def test_applying_again_retries_a_model_that_failed(places: Places, service: str) -> None:
    configure.apply(places, MANIFEST)
    files.write_json(places.status(service), {"state": "failed"})
    assert configure.services_to_restart(places, configure.apply(places, MANIFEST)) == (services.MODEL,)


def test_an_edit_keeps_the_other_options_and_shows_what_changes(places: Places) -> None:
    appliance.options(places, "model: Org/Old\nserved_name: mine\n")
    change = editing.edit(places, MANIFEST, {"model": "Org/New", "max_model_len": "4096"})
    assert change.diff == "-model: Org/Old\n+model: Org/New\n+max_model_len: 4096"
    editing.save(places, change)
    choice, problems = options.read(places, MANIFEST)
    assert (choice.model, choice.served_name, choice.max_model_len) == ("Org/New", "mine", 4096)
    assert not problems
    assert mode(places.options) == 0o600


def test_an_edit_that_changes_nothing_is_empty(places: Places) -> None:
    appliance.options(places, "model: Org/Name\n")
    assert editing.edit(places, MANIFEST, {"model": "Org/Name"}).diff == ""


def test_another_token_is_a_change_that_shows_no_token(places: Places) -> None:
    appliance.options(places, f"hf_token: {TOKEN}\n")
    assert editing.edit(places, MANIFEST, {"hf_token": TOKEN + "9"}).diff == "-hf_token: ********\n+hf_token: ********"


def test_unset_removes_the_option(places: Places) -> None:
    appliance.options(places, "model: Org/Name\n")
    change = editing.edit(places, MANIFEST, {}, ("model",))
    assert change.diff == "-model: Org/Name"
    editing.save(places, change)
    assert options.read(places, MANIFEST)[0].model is None


def test_unset_also_hides_what_the_user_data_chose(places: Places) -> None:
    appliance.cloud_config(places, f"#cloud-config\naisandbox: {{model: User/Model, hf_token: {TOKEN}}}\n")
    change = editing.edit(places, MANIFEST, {}, ("model", "hf_token"))
    assert change.diff == "+model: null\n+hf_token: null"
    editing.save(places, change)
    assert options.read(places, MANIFEST) == (options.Choice(), ())


@pytest.mark.parametrize(
    ("values", "reason", "fix"),
    [
        ({"model": "typo"}, "model: 'typo' is not a valid model", "Qwen/Qwen3-8B"),
        ({"modle": "Org/Name"}, "no option modle", "Did you mean model?"),
        ({"model": "Org/Name", "max_model_len": "12"}, "is less than 256", "32768"),
    ],
)
def test_an_invalid_edit_is_refused_whole(places: Places, values: dict[str, str], reason: str, fix: str) -> None:
    with pytest.raises(InvalidOptionError, match=reason) as caught:
        editing.edit(places, MANIFEST, values)
    assert fix in caught.value.fix


def test_an_edit_of_a_malformed_file_is_refused(places: Places) -> None:
    appliance.options(places, "model: [\n")
    with pytest.raises(InvalidOptionError, match="not YAML"):
        editing.edit(places, MANIFEST, {"model": "Org/Name"})


def test_values_are_quoted_for_environment_files() -> None:
    assert rendering.fill("X={{ x | quoted }}\n", {"x": 'a "b" $c \\ `d`\ne'}) == 'X="a \\"b\\" \\$c \\\\ \\`d\\` e"\n'


def test_a_failed_write_leaves_the_old_file(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    target = places.etc / "file"
    files.write(target, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        files.write(target, "new")
    assert target.read_text() == "old"
    assert list(places.etc.iterdir()) == [target]
