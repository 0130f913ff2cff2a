"""The container of the whole appliance: options from its environment, its launcher, its logs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from aisandbox.instance import environment_file
from aisandbox.instance.choose import configure, editing, options
from aisandbox.instance.choose.options import InvalidOptionError
from aisandbox.instance.observe import status
from aisandbox.instance.places import PROGRAMS, Places
from aisandbox.instance.run.container import environment, logs, program
from aisandbox.instance.run.container.catalogue import Catalogue, Program, Runs, clock
from tests.support.appliance import GUIDE, MANIFEST, make

KEY = "a-key-of-sixteen-letters"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """An appliance in a container, with no options."""
    places = make(tmp_path / "root")
    catalogue = places.opt / PROGRAMS.parent.name / PROGRAMS.name
    catalogue.parent.mkdir()
    catalogue.write_text("{}")
    given(places)
    return places


def given(places: Places, **variables: str) -> None:
    """Start it with these environment variables."""
    places.environment.parent.mkdir(parents=True, exist_ok=True)
    places.environment.write_text(json.dumps(environment.taken({"PATH": "/bin", **variables})))


def problems(places: Places) -> dict[str | None, str]:
    return {problem.option: f"{problem}. {problem.fix}" for problem in options.read(places, MANIFEST)[1]}


def test_every_option_has_a_variable(places: Places) -> None:
    given(places, AISANDBOX_MODEL="Qwen/Qwen3-8B", AISANDBOX_MAX_MODEL_LEN="4096", AISANDBOX_API_KEY=KEY, HOME="/x")
    choice, found = options.read(places, MANIFEST)
    assert (choice.model, choice.max_model_len, found) == ("Qwen/Qwen3-8B", 4096, ())
    assert choice.api_key
    assert choice.api_key.get_secret_value() == KEY


def test_blank_fields_of_a_form_and_settings_that_are_none_are_left_out(places: Places) -> None:
    given(places, AISANDBOX_MODEL=" ", AISANDBOX_REVISION="", AISANDBOX_DEBUG="1", AISANDBOX_DOMAIN="")
    assert options.read(places, MANIFEST) == (options.Choice(), ())


def test_mistakes_are_told_and_keep_their_values_to_themselves(places: Places) -> None:
    given(places, AISANDBOX_MODLE=KEY, AISANDBOX_MAX_MODEL_LEN="many", AISANDBOX_API_KEY="short")
    told = problems(places)
    assert set(told) == {"modle", "max_model_len", "api_key"}
    assert "Did you mean model?" in told["modle"]
    assert "environment variables" in told["max_model_len"]
    assert KEY not in str(told) and "short" not in str(told)
    assert options.read(places, MANIFEST)[0].closed == {"api_key"}


def test_the_users_file_wins_and_lies_with_the_data(places: Places) -> None:
    given(places, AISANDBOX_SERVED_NAME="by-environment")
    assert places.options.is_relative_to(places.data)
    editing.save(places, editing.edit(places, MANIFEST, {"served_name": "by-file"}))
    assert options.read(places, MANIFEST)[0].served_name == "by-file"


def test_clouds_and_kernel_speak_to_the_host(places: Places) -> None:
    places.kernel_command_line.parent.mkdir(parents=True)
    places.kernel_command_line.write_text("aisandbox.model=evil/model")
    assert options.read(places, MANIFEST)[0].model is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("domain", "ai.example.com"),
        ("data_volume", "/dev/vdb"),
        ("allowed_cidrs", "203.0.113.7"),
        ("tls_email", "a@b.c"),
    ],
)
def test_what_needs_a_machine_is_refused_with_what_to_do_instead(places: Places, key: str, value: str) -> None:
    given(places, **{f"AISANDBOX_{key.upper()}": value})
    told = problems(places)
    assert set(told) == {key}
    assert "cannot be had in a container" in told[key]
    assert "Leave it out" in told[key] or "leave this out" in told[key]
    assert getattr(options.read(places, MANIFEST)[0], key) is None
    with pytest.raises(InvalidOptionError, match="cannot be had in a container"):
        editing.edit(places, MANIFEST, {key: value})


def test_networks_that_cannot_be_kept_out_meet_a_key_and_a_password(places: Places) -> None:
    given(places, AISANDBOX_ALLOWED_CIDRS="203.0.113.7", AISANDBOX_API_KEY=KEY)
    outcome = configure.apply(places, MANIFEST)
    assert (outcome.deployment.access.api_key, outcome.deployment.access.chat_login) == (True, True)
    assert options.read(places, MANIFEST)[0].closed == {"chat_password"}
    assert KEY in (places.etc / "nginx" / "api-lock.conf").read_text()


def test_the_platforms_proxy_is_known_by_the_pod(places: Places) -> None:
    given(places, RUNPOD_POD_ID="abc123", AISANDBOX_SANDBOX="public")
    configure.apply(places, MANIFEST)
    urls = [endpoint.url for endpoint in status.compose(places, MANIFEST).endpoints]
    assert urls == [
        f"https://abc123-{port}.proxy.runpod.net{path}" for port, path in ((3000, "/"), (8000, "/v1"), (8080, "/"))
    ]
    assert r"^https://abc123\-3000\.proxy\.runpod\.net\|" in (places.etc / "nginx" / "chat-origin.conf").read_text()
    assert "ORIGINS=https://abc123-8080.proxy.runpod.net" in (places.etc / "sandbox-api.env").read_text()
    given(places, RUNPOD_POD_ID='x" "";evil')
    assert configure.apply(places, MANIFEST).deployment.model == GUIDE
    assert not (places.etc / "nginx" / "chat-origin.conf").exists()


def test_the_gateway_names_visitors_by_a_header_that_nobody_else_knows(places: Places) -> None:
    configure.apply(places, MANIFEST)
    names = [
        line for line in (places.etc / "open-webui.env").read_text().splitlines() if "TRUSTED_EMAIL_HEADER" in line
    ]
    header = names[0].partition("=")[2]
    assert len(header) == len("X-Aisandbox-Visitor-") + 16
    assert f"proxy_set_header {header} $chat_visitor;" in (places.etc / "nginx" / "chat-login.conf").read_text()


def test_warnings_name_what_can_be_done_there(places: Places) -> None:
    given(places, AISANDBOX_API_KEY=KEY)
    configure.apply(places, MANIFEST)
    fixes = [warning.fix for warning in status.compose(places, MANIFEST).warnings]
    assert fixes
    assert not [fix for fix in fixes if "allowed_cidrs" in fix or "domain" in fix or "SSH" in fix]


# The launcher


@pytest.mark.parametrize("value", ["plain", "with space", "a\"b\\c$d`e'f", "", '{"a": [1]}', "a\x85b\u2028c\rd\x0c"])
def test_environment_files_are_read_as_systemd_reads_them(value: str) -> None:
    text = f"# comment\n\nKEY={environment_file.quoted(value)}\n  OTHER=bare value\nSINGLE='x y'\nno assignment\n"
    assert dict(environment_file.parse(text)) == {"KEY": value, "OTHER": "bare value", "SINGLE": "x y"}


@pytest.mark.parametrize(
    "value", ["one\ntwo", "one \n\ttwo\t\n", "one\x85two\u2028\n", '"\n$x\n\\', "\n", 'a\nKEY="b"\nc']
)
def test_values_of_several_lines_are_read_as_systemd_reads_them(value: str) -> None:
    text = f"KEY={environment_file.quoted_lines(value)}\nOTHER=bare\n"
    assert dict(environment_file.parse(text)) == {"KEY": value, "OTHER": "bare"}


def test_a_quote_that_does_not_end_takes_the_rest() -> None:
    assert dict(environment_file.parse('KEY="open\nOTHER=x\n')) == {"KEY": '"open\nOTHER=x'}


def test_a_program_has_no_environment_but_its_own(tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("A=file\nB=file\n")
    told = Program(
        command=["x"], user="vllm", home="/home", environment={"A": "1", "PORT": 2},  # type: ignore[dict-item]
        environment_files=[str(tmp_path / "settings"), f"-{tmp_path}/missing"], inherit=["NVIDIA_"],
    )  # fmt: skip
    found = program._environment(told, {"NVIDIA_X": "all", "AISANDBOX_API_KEY": KEY, "PATH": "/evil", "SECRET": "s"})
    assert found["A"] == found["B"] == "file"
    assert (found["PORT"], found["NVIDIA_X"], found["PATH"]) == ("2", "all", program.PATH)
    assert not {"AISANDBOX_API_KEY", "SECRET"} & set(found)
    with pytest.raises(FileNotFoundError):
        program._environment(Program(command=["x"], environment_files=[f"{tmp_path}/missing"]), {})


def test_restarts_are_counted_and_a_crash_loop_is_slowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    path = tmp_path / "runs" / "vllm.json"
    counts = [program._pace(Program(command=["x"]), path) for _ in range(8)]
    assert counts == list(range(8))
    assert pauses.count(program.WAIT_S) == 2, "the sixth restart is the first that waits"
    runs = Runs.read(path)
    assert runs and len(runs.times) == runs.restarts == 7
    # One that had run for long is no loop.
    Runs(runs.times, 7, clock() - 31).write(path)
    pauses.clear()
    assert program._pace(Program(command=["x"]), path) == 8
    assert pauses == [2]
    path.write_text("damaged")
    assert program._pace(Program(command=["x"]), path) == 0


def test_it_does_not_run_while_it_is_switched_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = tmp_path / "off"
    off.touch()
    catalogue = Catalogue({"x": Program(command=["/bin/false"], unless=str(off))}, "", tmp_path, tmp_path)
    assert program.main("x", catalogue) == program.NOT_NOW
    assert str(off) in capsys.readouterr().out


# Logs


def test_logs_are_followed_through_progress_bars_and_new_files(tmp_path: Path) -> None:
    path = tmp_path / "aisandbox-model.log"
    tail = logs.Tail(path)
    assert list(tail.lines()) == []
    path.write_text("<5>one\nlo")
    first = list(tail.lines())
    assert [(line.text, line.notice, str(line)) for line in first] == [("one", True, "model: one")]
    with path.open("a") as file:
        file.write("ad 1%\rload 2%\n")
    assert [line.text for line in tail.lines()] == ["load 2%"]
    with path.open("a") as file:
        file.write("last\n")
    path.rename(tmp_path / "aisandbox-model.log.1")
    path.write_text("first\n")
    assert [line.text for line in tail.lines()] == ["last", "first"]


def test_only_the_last_lines_come_when_asked(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("".join(f"{number}\n" for number in range(50)))
    catalogue = Catalogue({"x": Program(command=["x"])}, "", tmp_path, tmp_path)
    assert [line.text for line in logs.read(catalogue, ["x"], 2)] == ["48", "49"]
