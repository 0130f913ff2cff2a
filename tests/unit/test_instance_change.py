"""`aisandbox configure`: flags, editor, rehearsal, and runs side by side."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aisandbox.instance import cli, lock
from aisandbox.instance.choose import configure, editing, options
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.places import Places
from aisandbox.manifest import REPOSITORY
from tests.support import appliance
from tests.support.appliance import MANIFEST

KEY = "long-enough-for-a-key"
PASSWORD = "long-enough-for-a-password"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = appliance.make(tmp_path)
    places.run.mkdir(parents=True)
    return places


def command(places: Places, *arguments: str, text: str | None = None, **environment: str) -> Result:
    return CliRunner().invoke(cli.app, ["--root", str(places.root), *arguments], input=text, env=environment)


def chosen(places: Places) -> options.Choice:
    return options.read(places, MANIFEST)[0]


def snapshot(places: Places) -> dict[str, bytes]:
    """Everything that a run could change, besides the lock and the time of the last report."""
    folders = (places.etc, places.data, places.run)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    passing = (places.configure_lock, places.status("configure"))
    return {str(path): path.read_bytes() for path in files if path not in passing}


# Flags


def test_there_is_a_flag_for_every_option(places: Places) -> None:
    text = command(places, "configure", "--help", COLUMNS="200").stdout
    for option in MANIFEST.options:
        assert f"--{option.key.replace('_', '-')}" in text


def test_flags_choose(places: Places) -> None:
    result = command(
        places,
        *("configure", "--model", "acme/tiny", "--max-model-len", "4096", "--allowed-cidrs", "10.0.0.1, ::1"),
        *("--sandbox", "off", "--vllm-args", "--seed=1"),
    )
    assert result.exit_code == 0, result.stderr
    assert "+max_model_len: 4096" in result.stdout
    choice = chosen(places)
    assert (choice.model, choice.max_model_len, choice.sandbox) == ("acme/tiny", 4096, "off")
    assert (choice.allowed_cidrs, choice.vllm_args) == ("10.0.0.1/32,::1/128", "--seed 1")


def test_the_units_that_hear_of_it_are_named(places: Places) -> None:
    command(places, "configure")
    assert "Restarting aisandbox-model.service" in command(places, "configure", "--hf-token", "hf_12345678").stdout
    reloading = command(places, "configure", "--api-key", "-", text=f"{KEY}\n").stdout
    assert "Reloading nginx.service" in reloading


def test_repeating_is_nothing(places: Places) -> None:
    arguments = ("configure", "--model", "acme/tiny", "--set", "served_name=mine")
    assert command(places, *arguments).exit_code == 0
    before = snapshot(places)
    assert command(places, *arguments).stdout == "Nothing changed.\n"
    assert command(places, "configure").stdout == "Nothing changed.\n"
    assert snapshot(places) == before


def test_secrets_are_read_from_standard_input_in_the_order_of_the_options(places: Places) -> None:
    result = command(places, "configure", "--chat-password", "-", "--set", "api_key=-", text=f"{KEY}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.stderr
    choice = chosen(places)
    assert choice.api_key
    assert choice.chat_password
    assert (choice.api_key.get_secret_value(), choice.chat_password.get_secret_value()) == (KEY, PASSWORD)
    assert "To see address and password: sudo aisandbox keys" in result.stderr
    assert KEY not in result.output
    assert PASSWORD not in result.output


def test_a_secret_on_the_command_line_is_taken_with_a_word_of_advice(places: Places) -> None:
    result = command(places, "configure", "--api-key", KEY)
    assert result.exit_code == 0
    assert "--api-key -" in result.stderr
    assert KEY not in result.output


def test_no_secret_where_one_was_asked_for_is_refused(places: Places) -> None:
    result = command(places, "configure", "--api-key", "-", text="\n")
    assert result.exit_code == 2
    assert "No api key was given. Nothing was changed." in result.stderr


def test_a_secret_is_asked_for_without_echo(places: Places) -> None:
    main, follower = pty.openpty()
    argv = [sys.executable, "-m", "aisandbox.instance", "--root", str(places.root), "configure", "--api-key", "-"]
    # The terminal must be the controlling one, as a login has it.
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv], stdin=follower, stdout=follower, stderr=follower, cwd=REPOSITORY
    )
    os.close(follower)
    shown = b""
    while b"API key: " not in shown:
        shown += os.read(main, 1000)
    os.write(main, f"{KEY}\n".encode())
    try:
        while chunk := os.read(main, 1000):
            shown += chunk
    except OSError:  # closed by the other side
        pass
    assert process.wait(30) == 0, shown
    os.close(main)
    assert KEY.encode() not in shown
    assert chosen(places).api_key


def test_unset_returns_to_the_default(places: Places) -> None:
    appliance.options(places, f"api_key: {KEY}\nmodel: acme/tiny\n")
    result = command(places, "configure", "--unset", "api_key", "--unset", "model")
    assert result.exit_code == 0
    assert "-api_key: ********" in result.stdout
    assert chosen(places) == options.Choice()


def test_unset_opens_a_door_that_a_mistake_has_closed(places: Places) -> None:
    appliance.cloud_config(places, "#cloud-config\naisandbox: {api_kye: x, allowed_cidrs: home}\n")
    assert chosen(places).closed == {"api_key", "allowed_cidrs"}
    assert command(places, "configure", "--unset", "api_key", "--unset", "allowed_cidrs").exit_code == 0
    assert options.read(places, MANIFEST) == (options.Choice(), ())


def test_comments_that_get_lost_are_shown(places: Places) -> None:
    appliance.options(places, "# the big one\nmodel: acme/tiny # fast\n  # another\n")
    result = command(places, "configure", "--set", "served_name=x")
    assert "These comments get lost" in result.stderr
    assert "# the big one\n  # another" in result.stderr
    again = command(places, "configure", "--set", "served_name=y")
    assert "comments" not in again.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--max-model-len", "4k"), "max_model_len: '4k' is not a whole number"),
        (("--sandbox", "maybe"), "is none of off, local, public"),
        (("--allowed-cidrs", "10.0.0.1/8"), "inside the network 10.0.0.0/8"),
        (("--vllm-args", "--port 1"), "--port is not allowed"),
        (("--set", "modle=a/b"), "Did you mean model?"),
        (("--unset", "modle"), "Did you mean model?"),
        (("--set", "model"), "has no value"),
        (("--edit", "--model", "a/b"), "--edit takes no other changes"),
        (("--api-key", f"{KEY}!"), "api_key: '********' is not a valid"),
    ],
)
def test_a_mistake_changes_nothing(places: Places, arguments: tuple[str, ...], reason: str) -> None:
    appliance.options(places, "served_name: mine\n")
    before = snapshot(places)
    result = command(places, "configure", *arguments)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert "Nothing was changed." in result.stderr
    assert KEY not in result.output
    assert snapshot(places) == before


def test_code_that_comes_with_a_model_is_named(places: Places) -> None:
    result = command(places, "configure", "--model", "acme/tiny", "--vllm-args", "--trust-remote-code")
    assert "Python code that comes with the model runs on this instance" in result.stderr
    assert "Python code" not in command(places, "configure", "--set", "served_name=x").stderr


# Rehearsal, and what is in force


def test_a_rehearsal_shows_everything_and_changes_nothing(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    command(places, "configure")
    before = snapshot(places)
    result = command(places, "configure", "--model", "acme/other", "--dry-run")
    assert result.exit_code == 0
    assert "-model: acme/tiny\n+model: acme/other" in result.stdout
    assert "aisandbox-model.service" in result.stdout
    assert "Nothing was changed." in result.stdout
    assert snapshot(places) == before
    assert "Would touch: no service" in command(places, "configure", "--dry-run").stdout


def test_the_choice_in_force_and_its_sources(places: Places) -> None:
    appliance.options(places, f"model: acme/tiny\napi_key: {KEY}\nchat_password: x\nallowed_cidrs: home\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {model: User/Model, served_name: mine}\n")
    result = command(places, "configure", "--show")
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert rows["model"] == ["acme/tiny", str(places.options)]
    assert rows["served_name"] == ["mine", "user-data"]
    assert rows["sandbox"] == ["local", "default"]
    assert rows["api_key"] == ["********", str(places.options)]
    assert rows["chat_password"] == ["(generated)", "mistake"]
    assert rows["allowed_cidrs"] == ["(nobody)", "mistake"]
    assert "revision" not in rows
    assert "was meant to be set" in result.stderr
    assert KEY not in result.output


def test_the_schema_is_printed(places: Places) -> None:
    import jsonschema  # half a second, in every process of the suite

    schema = json.loads(command(places, "schema").stdout)
    assert schema == MANIFEST.options_schema()
    jsonschema.Draft202012Validator.check_schema(schema)


# Editor


def editor(places: Places, *scripts: str) -> str:
    """An editor that runs one of the scripts on the file at every call, the last one again and again."""
    program = places.root / "editor"
    cases = "".join(f"{number}) {script} ;;\n" for number, script in enumerate(scripts[:-1]))
    program.write_text(
        f'#!/bin/sh\ncount=$(cat "$0.count" 2>/dev/null || echo 0)\necho $((count + 1)) > "$0.count"\n'
        f'stat -c %a "$1" > "$0.mode"\ncase $count in\n{cases}*) {scripts[-1]} ;;\nesac\n'
    )
    program.chmod(0o755)
    return str(program)


def test_the_editor_changes_what_it_changes_and_keeps_comments(places: Places) -> None:
    appliance.options(places, "# mine\nmodel: acme/tiny\n")
    program = editor(places, 'sed -i s/tiny/other/ "$1"')
    result = command(places, "configure", "--edit", EDITOR=program)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("-model: acme/tiny\n+model: acme/other\n")
    assert places.options.read_text() == "# mine\nmodel: acme/other\n"
    assert stat.S_IMODE(places.options.stat().st_mode) == 0o600
    assert Path(f"{program}.mode").read_text() == "600\n"
    assert list(places.run.glob("options-*")) == []


def test_a_first_edit_offers_every_option(places: Places) -> None:
    program = editor(places, 'cp "$1" "$0.seen"')
    assert command(places, "configure", "--edit", EDITOR=program).exit_code == 0
    seen = Path(f"{program}.seen").read_text()
    assert all(f"\n#{option.key}: " in seen for option in MANIFEST.options)
    assert options.read(places, MANIFEST) == (options.Choice(), ())


def test_an_edit_without_a_change(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    command(places, "configure")
    assert command(places, "configure", "--edit", EDITOR="true").stdout == "Nothing changed.\n"


def test_mistakes_are_named_with_their_lines_and_the_text_is_kept(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    program = editor(places, f'printf "model: a/b\\n\\nmax_model_len: 4k\\nsandbx: off\\napi_key: {KEY}!\\n" > "$1"')
    result = command(places, "configure", "--edit", EDITOR=program)
    assert result.exit_code == 2
    assert "line 3: max_model_len '4k': is not a whole number" in result.stderr
    assert "line 4: sandbx: there is no such option" in result.stderr
    assert "line 5: api_key '********'" in result.stderr
    assert KEY not in result.output
    assert places.options.read_text() == "model: acme/tiny\n"
    (kept,) = places.run.glob("options-*")
    assert str(kept) in result.stderr
    assert "max_model_len: 4k" in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_file_that_is_not_yaml_can_be_mended(places: Places) -> None:
    appliance.options(places, "model: [\n")
    assert "configure --edit" in command(places, "configure", "--model", "acme/tiny").stderr
    program = editor(places, 'printf "model: acme/tiny\\n" > "$1"')
    assert command(places, "configure", "--edit", EDITOR=program).exit_code == 0
    assert chosen(places).model == "acme/tiny"


@pytest.mark.parametrize("answer", ["e", "x"])
def test_after_a_mistake_one_may_go_on_or_give_up(places: Places, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from aisandbox.instance.commands import editor as editing_commands

    appliance.options(places, "model: acme/tiny\n")
    program = editor(places, 'echo "model: bad" > "$1"', 'echo "model: acme/good" > "$1"')
    monkeypatch.setattr(editing_commands, "_has_terminal", lambda: True)
    result = command(places, "configure", "--edit", text=f"?\n{answer}\n", EDITOR=program)
    assert "is not a valid model" in result.stderr
    assert result.exit_code == (0 if answer == "e" else 2)
    assert chosen(places).model == ("acme/good" if answer == "e" else "acme/tiny")


@pytest.mark.parametrize("program", ["false", "/no/such/editor"])
def test_an_editor_that_fails_changes_nothing(places: Places, program: str) -> None:
    appliance.options(places, "model: acme/tiny\n")
    result = command(places, "configure", "--edit", EDITOR=program)
    assert result.exit_code == 2
    assert "Nothing was changed." in result.stderr
    assert places.options.read_text() == "model: acme/tiny\n"


def test_what_somebody_else_has_changed_meanwhile_is_not_overwritten(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    program = editor(places, f'echo "model: acme/mine" > "$1"; echo "model: acme/theirs" > {places.options}')
    result = command(places, "configure", "--edit", EDITOR=program)
    assert result.exit_code == 2
    assert "has been changed by somebody else" in result.stderr
    assert chosen(places).model == "acme/theirs"
    (kept,) = places.run.glob("options-*")
    assert kept.read_text() == "model: acme/mine\n"


# Side by side, and power cuts


def test_a_second_run_waits_and_then_says_so(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    from aisandbox.instance.commands import change

    monkeypatch.setattr(change, "WAIT_S", 0.2)
    with lock.held(places.configure_lock, 0):
        before = snapshot(places)
        result = command(places, "configure", "--model", "acme/tiny")
        assert snapshot(places) == before
        assert command(places, "configure", "--boot").exit_code == 0  # coming up matters more
    assert result.exit_code == 2
    assert "Another aisandbox configure is at work." in result.stderr
    assert command(places, "configure", "--model", "acme/tiny").exit_code == 0


def test_runs_side_by_side_lose_nothing(places: Places) -> None:
    arguments = [["--model", "acme/tiny"], ["--set", "served_name=mine"], ["--max-model-len", "4096"]]
    start = [sys.executable, "-m", "aisandbox.instance", "--root", str(places.root), "configure"]
    runs = [subprocess.Popen([*start, *more], cwd=REPOSITORY, stdout=subprocess.DEVNULL) for more in arguments]
    assert [run.wait(60) for run in runs] == [0, 0, 0]
    choice = chosen(places)
    assert (choice.model, choice.served_name, choice.max_model_len) == ("acme/tiny", "mine", 4096)


def test_a_run_that_is_killed_leaves_whole_files(places: Places) -> None:
    """Killed at any moment, the choice is the old or the new one, never half of one."""
    start = [sys.executable, "-m", "aisandbox.instance", "--root", str(places.root), "configure", "--set"]
    appliance.options(places, "served_name: name-0\n")
    whole = subprocess.Popen([*start, "served_name=name-0"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    assert whole.wait(60) == 0
    lasts_s = time.monotonic() - begin
    for turn in range(1, 7):
        run = subprocess.Popen([*start, f"served_name=name-{turn}"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
        time.sleep(lasts_s * (0.4 + 0.1 * turn))
        run.kill()
        run.wait()
        choice, problems = options.read(places, MANIFEST)
        assert problems == ()
        assert choice.served_name
        assert choice.served_name in {f"name-{number}" for number in range(turn + 1)}
        if places.resolved.exists():
            assert Deployment.load(places.resolved), "never half of one"


def test_boot_with_a_damaged_file_comes_up_on_the_last_good_choice(places: Places) -> None:
    appliance.options(places, f"model: acme/tiny\napi_key: {KEY}\n")
    assert configure.apply(places, MANIFEST).deployment.model == "acme/tiny"
    appliance.options(places, "")
    outcome = configure.apply(places, MANIFEST)
    assert outcome.deployment.model == "acme/tiny"
    assert outcome.deployment.access.api_key
    (problem,) = outcome.deployment.problems
    assert problem.reason == "is empty; the last good choice is used"
    assert problem.fix == "Write it anew: sudo aisandbox configure --edit"


def test_a_file_with_a_mistake_is_not_the_last_good_one(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    configure.apply(places, MANIFEST)
    appliance.options(places, "model: typo\n")
    configure.apply(places, MANIFEST)
    assert places.last_good_options.read_text() == "model: acme/tiny\n"


def test_an_edit_starts_from_the_file(places: Places) -> None:
    appliance.options(places, "model: acme/tiny\n")
    change = editing.edit(places, MANIFEST, {"model": "acme/other"})
    appliance.options(places, "model: acme/third\n")
    with pytest.raises(editing.ConflictError):
        editing.save(places, change)
