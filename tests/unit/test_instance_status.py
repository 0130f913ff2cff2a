"""The composed state, and the command line around everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from aisandbox import manifest as manifests
from aisandbox.instance import cli, configure, files, status, systemd
from aisandbox.instance.places import Places
from aisandbox.manifest import REPOSITORY, Manifest
from tests.support import appliance
from tests.support.appliance import GUIDE, MANIFEST

SHOW = """\
Id=vllm.service
LoadState=loaded
ActiveState=failed
SubState=failed
Result=exit-code
NRestarts=4

Id=open-webui.service
LoadState=not-found
ActiveState=inactive
SubState=dead
Result=success
NRestarts=0
"""


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def healthy() -> Iterator[int]:
    """A server that says it is healthy; gives its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path)


def on_ports(ports: dict[str, int]) -> Manifest:
    """The manifest with some ports moved; the others lead nowhere."""
    moved = {name: port.model_copy(update={"port": ports.get(name, 1)}) for name, port in MANIFEST.ports.items()}
    return MANIFEST.model_copy(update={"ports": moved})


@pytest.fixture
def all_healthy() -> Iterator[Manifest]:
    with ExitStack() as stack:
        names = ("chat", "chat_upstream", "api", "api_upstream")
        yield on_ports({name: stack.enter_context(healthy()) for name in names})


def test_before_anything_has_run_it_is_starting(places: Places) -> None:
    overview = status.compose(places, on_ports({}))
    assert overview.state == "starting"
    assert [(phase.phase, phase.state) for phase in overview.phases] == [
        ("configure", "waiting"),
        ("model", "waiting"),
        ("engine", "waiting"),
    ]
    assert overview.version == "1.2.3"
    assert overview.model is None


def test_it_is_ready_once_chat_and_api_answer(places: Places, all_healthy: Manifest) -> None:
    configure.apply(places, MANIFEST)
    folder = places.hub_cache / "models--aisandbox--guide" / "snapshots" / "1"
    files.write_json(places.engine, {"model": str(folder), "served_names": ["mine"], "args": []})
    overview = status.compose(places, all_healthy)
    assert overview.ready
    assert (overview.model, overview.serving) == (GUIDE, GUIDE)
    assert [endpoint.ready for endpoint in overview.endpoints] == [True, True]


def test_one_server_that_does_not_answer_is_not_ready(places: Places, all_healthy: Manifest) -> None:
    port = all_healthy.ports["chat_upstream"].port
    overview = status.compose(places, on_ports({"chat": port, "chat_upstream": port}))
    assert overview.state == "starting"
    assert [endpoint.ready for endpoint in overview.endpoints] == [True, False]


def test_a_failed_phase_is_a_problem_with_its_fix(places: Places) -> None:
    files.write_json(
        places.status("model"), {"phase": "fetch", "state": "failed", "message": "No such model.", "fix": "Fix"}
    )
    overview = status.compose(places, on_ports({}))
    (problem,) = overview.problems
    assert (str(problem), problem.fix) == ("No such model.", "Fix")
    assert overview.state == "failed"


def test_a_phase_shows_what_its_service_reports(places: Places) -> None:
    report = {"phase": "download", "state": "running", "message": "m", "fix": "", "bytes_done": 5, "bytes_total": 10}
    files.write_json(places.status("model"), report)
    published = json.loads(status.compose(places, on_ports({})).model_dump_json())["phases"][1]
    assert published["phase"] == "model"
    assert published["step"] == "download"
    assert (published["bytes_done"], published["bytes_total"]) == (5, 10)


def test_no_secret_is_published(places: Places) -> None:
    token = "hf_abcdefgh12345678"
    appliance.options(places, f"hf_token: {token}\nmodel: bad\n")
    configure.apply(places, MANIFEST)
    published = status.compose(places, on_ports({})).model_dump_json()
    secrets = [token, *(path.read_text().strip() for path in places.secrets.iterdir())]
    assert not [secret for secret in secrets if secret in published]
    assert "is not a valid model" in published


def test_the_cloud_knows_the_public_address(places: Places) -> None:
    places.cloud_run.mkdir(parents=True)
    data = {"ds": {"meta_data": {"public-ipv4": "203.0.113.7"}}}
    (places.cloud_run / "instance-data.json").write_text(json.dumps(data))
    overview = status.compose(places, MANIFEST)
    assert overview.endpoints[0].url == f"http://203.0.113.7:{MANIFEST.ports['chat'].port}/"
    assert overview.ssh == f"ssh {MANIFEST.os.default_user}@203.0.113.7"


def test_waiting_ends_at_once_when_ready_and_in_time_when_not(places: Places, all_healthy: Manifest) -> None:
    naps: list[float] = []
    assert status.wait(places, all_healthy, 60, naps.append).ready
    assert not naps
    assert not status.wait(places, on_ports({}), 0.2).ready


def test_the_page_gets_the_status_and_a_mark_when_ready(
    places: Places, all_healthy: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stop)
    for manifest, ready in ((all_healthy, True), (on_ports({}), False)):
        with pytest.raises(KeyboardInterrupt):
            status.publish(places, manifest)
        assert places.published_ready.exists() is ready
        assert (json.loads(places.published_status.read_text())["state"] == "ready") is ready


@pytest.fixture
def fake_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that answers `show`, and writes down how it was called."""
    log = tmp_path / "calls"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" != show ] || cat <<\'E\'\n{SHOW}\nE\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return log


def test_units_are_those_that_exist(fake_systemctl: Path) -> None:
    (unit,) = systemd.units()
    assert unit == systemd.Unit(name="vllm.service", active="failed", sub="failed", result="exit-code", restarts=4)


def test_restarting_also_forgets_earlier_failures(fake_systemctl: Path) -> None:
    systemd.restart(systemd.VLLM)
    assert fake_systemctl.read_text().splitlines() == [
        "reset-failed vllm.service",
        "restart --no-block vllm.service",
    ]


def test_without_systemd_no_units_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert systemd.units() == ()


def command(root: Path, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, ["--root", str(root), *arguments])


def process(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as its users do."""
    return subprocess.run(
        [sys.executable, "-m", "aisandbox.instance", "--root", str(root), *arguments],
        capture_output=True,
        text=True,
        cwd=manifests.REPOSITORY,
        env={**os.environ, **environment},
        check=False,
    )


def test_boot_never_fails(places: Places) -> None:
    appliance.options(places, "model: [\n")
    appliance.cloud_config(places, "#cloud-config\naisandbox: {modle: x}\n")
    result = command(places.root, "configure", "--boot")
    assert result.exit_code == 0
    assert "not YAML" in result.stderr
    assert "Did you mean model?" in result.stderr
    assert len(files.read_json(places.plan)["problems"]) == 2  # type: ignore[index]


def test_changing_the_model_from_the_command_line(places: Places) -> None:
    result = command(places.root, "configure", "--model", "acme/tiny", "--set", "served_name=mine")
    assert result.exit_code == 0
    assert result.stdout.startswith("+served_name: mine\n+model: acme/tiny\n")
    assert "aisandbox-model.service" in result.stdout
    assert command(places.root, "configure", "--model", "acme/tiny").stdout == "Nothing changed.\n"


@pytest.mark.parametrize("arguments", [["--model", "typo"], ["--set", "modle=a/b"], ["--set", "model"]])
def test_an_invalid_change_exits_with_2_and_changes_nothing(places: Places, arguments: list[str]) -> None:
    appliance.options(places, "served_name: mine\n")
    result = command(places.root, "configure", *arguments)
    assert result.exit_code == 2
    assert "Nothing was changed." in result.stderr
    assert places.options.read_text() == "served_name: mine\n"
    assert not places.plan.exists()


def test_status_for_people_and_for_programs(places: Places) -> None:
    appliance.options(places, "model: typo\n")
    configure.apply(places, MANIFEST)
    people = command(places.root, "status").stdout
    assert "AI Sandbox 1.2.3: starting" in people
    assert "is not a valid model" in people
    assert json.loads(command(places.root, "status", "--json").stdout)["model"] == GUIDE


def test_status_wait_fails_when_not_ready_in_time(places: Places) -> None:
    assert command(places.root, "status", "--json", "--wait", "0").exit_code == 1


def test_the_login_message_names_addresses_problems_and_warnings(places: Places) -> None:
    appliance.options(places, "model: typo\n")
    configure.apply(places, MANIFEST)
    text = command(places.root, "motd").stdout
    assert f":{MANIFEST.ports['chat'].port}/" in text
    assert f":{MANIFEST.ports['api'].port}/v1" in text
    assert "is not a valid model" in text
    assert "sudo aisandbox configure --set model=" in text
    assert f"Allow port {MANIFEST.ports['chat'].port} only from your own addresses" in text
    assert max(map(len, text.splitlines())) < 200


def test_a_crash_is_one_line_and_a_hint(places: Places) -> None:
    result = process(places.root, "model-fetch")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("aisandbox failed: FileNotFoundError")
    assert "aisandbox logs" in result.stderr
    assert "Traceback" in process(places.root, "model-fetch", AISANDBOX_DEBUG="1").stderr


def test_help_advertises_only_what_users_need(places: Places) -> None:
    text = command(places.root, "--help").stdout
    assert all(name in text for name in ("status", "configure", "logs"))
    assert not any(name in text for name in ("model-fetch", "engine-sync", "status-publish", "--root"))


def test_status_shows_every_service_of_the_catalogue() -> None:
    catalogue = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())["services"]
    ours = {f"{name}.service" for name, service in catalogue.items() if "appliance" in service["targets"]}
    assert ours <= set(systemd.SERVICES)
