"""The composed state, and the command line around everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from aisandbox import manifest as manifests
from aisandbox.instance import cli, clock, files
from aisandbox.instance.access import Access
from aisandbox.instance.choose import configure
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.observe import journal, notices, publisher, status, timeline
from aisandbox.instance.observe.report import Reporter
from aisandbox.instance.places import Places
from aisandbox.instance.run import services
from aisandbox.manifest import REPOSITORY, Manifest
from tests.support import appliance
from tests.support.appliance import GUIDE, MANIFEST
from tests.support.deployments import locate, resolve
from tests.support.programs import fake

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
    resolve(places, model=GUIDE)
    folder = places.hub_cache / "models--aisandbox--guide" / "snapshots" / "1"
    locate(places, folder)
    overview = status.compose(places, all_healthy)
    assert overview.ready
    assert (overview.model, overview.serving) == (GUIDE, GUIDE)
    assert [endpoint.ready for endpoint in overview.endpoints][:2] == [True, True]


def test_one_server_that_does_not_answer_is_not_ready(places: Places, all_healthy: Manifest) -> None:
    port = all_healthy.ports["chat_upstream"].port
    overview = status.compose(places, on_ports({"chat": port, "chat_upstream": port}))
    assert overview.state == "starting"
    assert [endpoint.ready for endpoint in overview.endpoints][:2] == [True, False]


def test_a_failed_phase_is_a_problem_with_its_fix(places: Places) -> None:
    files.write_json(
        places.status("model"), {"phase": "fetch", "state": "failed", "message": "No such model.", "fix": "Fix"}
    )
    overview = status.compose(places, on_ports({}))
    (problem,) = overview.problems
    assert (str(problem), problem.fix) == ("No such model.", "Fix")
    assert overview.state == "failed"


def test_what_is_wrong_with_a_gpu_is_a_problem_and_no_failure(places: Places) -> None:
    lost = {"reason": "GPU 3 has fallen off the bus", "fix": "sudo reboot"}
    resolve(places, hardware={"flavour": "cuda", "problems": [lost]})
    overview = status.compose(places, on_ports({}))
    assert [(str(problem), problem.fix) for problem in overview.problems] == [tuple(lost.values())]
    assert overview.state == "starting"


def test_a_problem_that_a_phase_failed_for_is_told_once(places: Places) -> None:
    """In the phase's words, which also say what serves."""
    gone, other = {"reason": "no GPU can be used", "fix": "Take one."}, {"reason": "'x' is no key", "fix": "Give one."}
    resolve(places, problems=[gone, other])
    report(
        places, "model", "failed", message="Serving acme/guide on the processor: no GPU can be used.", fix="Take one."
    )
    told = [str(problem) for problem in status.compose(places, MANIFEST).problems]
    assert told == ["'x' is no key", "Serving acme/guide on the processor: no GPU can be used."]


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
    for manifest, ready in ((all_healthy, True), (on_ports({}), False)):
        publish_once(places, manifest, monkeypatch)
        assert places.published_ready.exists() is ready
        assert places.published_loading.exists() is places.published_loading_messages.exists() is not ready
        assert (json.loads(places.published_status.read_text())["state"] == "ready") is ready


def publish_once(places: Places, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(time, "sleep", stop)
        publisher.publish(places, manifest)


def report(places: Places, service: str, state: str, **facts: object) -> None:
    entry = {"phase": "step", "state": state, "message": f"{service} is {state}.", "fix": "Mend it."}
    files.write_json(places.status(service), {**entry, **facts})


DOWNLOADING = {
    "phase": "download",
    "message": "Downloading acme/tiny.",
    "bytes_done": 4_000_000_000,
    "bytes_total": 16_000_000_000,
    "bytes_per_second": 100_000_000,
    "eta_s": 120,
}


def test_the_api_says_how_far_the_model_is(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    report(places, "model", "running", **DOWNLOADING)
    publish_once(places, on_ports({}), monkeypatch)
    error = json.loads(places.published_loading.read_text())["error"]
    assert (error["type"], error["code"], error["param"]) == ("service_unavailable", "model_loading", None)
    assert error["message"].startswith(
        "The model is not ready yet: Downloading acme/tiny. 25 % done, about 120 s left."
    )
    progress = error["progress"]
    assert (progress["phase"], progress["step"], progress["percent"], progress["eta_s"]) == (
        "model",
        "download",
        25,
        120,
    )
    assert (progress["bytes_done"], progress["bytes_total"]) == (4_000_000_000, 16_000_000_000)
    assert progress["elapsed_s"] > 0
    assert json.loads(places.published_loading_messages.read_text()) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": error["message"], "progress": progress},
    }


def test_the_api_says_why_nothing_can_be_served(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    report(places, "model", "failed", message="There is no model acme/tinny.")
    publish_once(places, on_ports({}), monkeypatch)
    error = json.loads(places.published_loading.read_text())["error"]
    assert error["message"].startswith("No model can be served: There is no model acme/tinny.")
    assert (error["progress"]["state"], error["progress"]["percent"]) == ("failed", None)


@pytest.mark.parametrize("facts", [{"bytes_total": "many"}, {"bytes_total": 0}, {"bytes_total": 5, "bytes_done": None}])
def test_odd_facts_do_not_stop_the_publisher(
    places: Places, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object]
) -> None:
    report(places, "model", "running", **facts)
    publish_once(places, on_ports({}), monkeypatch)
    assert "model is running." in places.published_loading.read_text()


def test_the_sizing_decision_is_shown(places: Places) -> None:
    rows = [["Weights", "16.0 GB"], ["Context", "9 k [tokens]"]]
    report(places, "model", "running", sizing={"sentence": "Fits one 24 GB GPU.", "rows": rows})
    overview = status.compose(places, on_ports({}))
    assert overview.sizing and overview.sizing.sentence == "Fits one 24 GB GPU."
    people = command(places.root, "status").stdout
    assert "Fits one 24 GB GPU." in people and "16.0 GB" in people and "9 k [tokens]" in people


@pytest.mark.parametrize("odd", ["text", {"rows": []}, {"sentence": 5, "rows": "x"}, []])
def test_an_unreadable_sizing_is_left_out(places: Places, odd: object) -> None:
    report(places, "model", "running", sizing=odd)
    assert status.compose(places, on_ports({})).sizing is None


def test_the_certificate_is_a_phase_only_where_there_is_one(places: Places) -> None:
    assert "certificate" not in [phase.phase for phase in status.compose(places, on_ports({})).phases]
    report(places, "certificate", "failed")
    overview = status.compose(places, on_ports({}))
    assert overview.phases[-1].phase == "certificate"
    assert [str(problem) for problem in overview.problems] == ["Certificate is failed."]
    # Chat and API come up all the same.
    assert overview.state == "starting"


def test_addresses_are_those_of_the_domain_once_it_has_a_certificate(places: Places) -> None:
    resolve(places, access={"domain": "ai.example.com"})
    report(places, "certificate", "running")
    assert status.compose(places, MANIFEST).endpoints[0].url.startswith("http://")
    report(places, "certificate", "done")
    chat, api, _ = status.compose(places, MANIFEST).endpoints
    assert (chat.url, api.url) == ("https://ai.example.com/", "https://ai.example.com/v1")


def test_the_sandbox_is_reached_as_it_was_chosen(places: Places) -> None:
    def sandbox(choice: str) -> list[status.Endpoint]:
        resolve(places, access={"sandbox": choice})
        return [endpoint for endpoint in status.compose(places, MANIFEST).endpoints if endpoint.name == "sandbox"]

    port = MANIFEST.ports["sandbox"].port
    (local,) = sandbox("local")
    assert local.url == f"http://localhost:{port}/"
    assert local.tunnel.startswith(f"ssh -L {port}:localhost:{port} {MANIFEST.os.default_user}@")
    (public,) = sandbox("public")
    assert "localhost" not in public.url and not public.tunnel
    assert sandbox("off") == []


def test_the_sandbox_does_not_hold_up_readiness(places: Places, all_healthy: Manifest) -> None:
    overview = status.compose(places, all_healthy)
    assert overview.ready
    assert [endpoint.ready for endpoint in overview.endpoints] == [True, True, False]


def test_the_engine_names_what_it_serves_instead(places: Places, all_healthy: Manifest) -> None:
    resolve(places)
    report(places, "engine", "failed", serving=GUIDE, message="acme/tiny cannot be served.")
    overview = status.compose(places, all_healthy)
    assert (overview.state, overview.model, overview.serving) == ("ready", "acme/tiny", GUIDE)
    assert f"acme/tiny (serving {GUIDE})" in command(places.root, "status").stdout


def test_a_crash_loop_is_told_apart_from_a_start(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(name: str) -> status.Overview:
        unit = services.Unit(name=name, active="activating", sub="auto-restart", result="exit-code", restarts=9)
        monkeypatch.setattr(services, "units", lambda names=(): (unit,))
        return status.compose(live(places), on_ports({}))

    overview = state(services.VLLM)
    assert overview.state == "failed"
    assert "crash" in str(overview.problems[0])
    assert overview.problems[0].fix == "sudo aisandbox logs vllm"
    # What is not on the way to the first answer is a problem, but no failure.
    overview = state("code-server.service")
    assert (overview.state, len(overview.problems)) == ("starting", 1)


def test_what_a_service_said_before_it_crashed_is_not_published(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = services.Unit(name=services.OPEN_WEBUI, active="activating", sub="x", result="exit-code", restarts=9)
    monkeypatch.setattr(services, "units", lambda names=(): (unit,))
    monkeypatch.setattr(services, "crash_loop", lambda unit: "crashed 9 times; last error: what somebody wrote")
    here = live(places)
    assert "what somebody wrote" in str(status.compose(here, on_ports({})).problems)
    published = status.compose(here, on_ports({}), public=True)
    assert "what somebody wrote" not in published.model_dump_json()
    assert (published.state, str(published.problems[0])) == ("failed", "open-webui.service keeps crashing")


def test_kernel_driver_and_cuda_of_the_image_are_shown_and_not_published(places: Places) -> None:
    assert status.compose(places, on_ports({})).image.driver == ""
    assert "Image:" not in command(places.root, "status").stdout
    facts = {"kernel": "6.1.0-41-amd64", "driver": "580.126.20", "cuda": "13.0.96"}
    files.write_json(places.release, {"version": "1.2.3", "flavour": "cuda", **facts})
    shown = command(places.root, "status").stdout
    assert "Image: cuda, kernel 6.1.0-41-amd64, NVIDIA driver 580.126.20, CUDA 13.0.96" in shown
    assert facts.items() <= status.compose(places, on_ports({})).image.model_dump().items()
    assert "580.126" not in status.compose(places, on_ports({}), public=True).model_dump_json()


def live(places: Places) -> Places:
    """The same folders, as those of the machine itself."""
    return replace(places, root=Path("/"))


def test_the_timeline_tells_what_took_the_time(places: Places) -> None:
    times = timeline.spans(
        {"cloud-init began": 1.0, "cloud-init ended": 4.0, "configure began": 4.1, "engine": 2.0},
        {"done": 4.6},
        {"look-up": 5.0, "download": 5.5, "done": 65.5},
        {"import": 0.5, "wait": 20.0, "load": 63.6, "serve": 67.5},
        {"chat_port": 6.0, "ready": 70.0},
    )
    assert [(span.name, span.began_s, span.ended_s) for span in times] == [
        ("power-on", 0, 0),
        ("cloud-init", 1.0, 4.0),
        ("engine import", 2.5, 22.0),
        ("configure", 4.1, 4.6),
        ("model look-up", 5.0, 5.5),
        ("download", 5.5, 65.5),
        ("chat port answers", 6.0, 6.0),
        ("engine waits for the model", 22.0, 65.6),
        ("engine load", 65.6, 69.5),
        ("first token possible", 70.0, 70.0),
    ]


def test_what_comes_after_the_first_answer_is_not_on_the_timeline() -> None:
    late = {"look-up": 900.0, "download": 901.0, "done": 5.0}
    names = [span.name for span in timeline.spans({}, {}, late, {}, {"ready": 9.0})]
    assert names == ["power-on", "first token possible"]


def test_a_phase_that_goes_on_has_no_end() -> None:
    (_, span) = timeline.spans({}, {}, {"download": 5.0}, {}, {})
    assert (span.name, span.ended_s) == ("download", None)


SHOW_TIMES = """\
Id=cloud-init-local.service
InactiveExitTimestampMonotonic={0}
ActiveEnterTimestampMonotonic={1}
ExecMainStartTimestampMonotonic={0}

Id=cloud-init-network.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0
ExecMainStartTimestampMonotonic=0

Id=cloud-init.service
InactiveExitTimestampMonotonic={1}
ActiveEnterTimestampMonotonic={2}
ExecMainStartTimestampMonotonic={1}
"""


def test_times_of_systemd_count_from_power_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = round((time.clock_gettime(time.CLOCK_MONOTONIC) - clock.since_power_on()) * 1e6)
    shown = SHOW_TIMES.format(*(base + second * 1_000_000 for second in (1, 2, 3)))
    fake(tmp_path, monkeypatch, "systemctl", f"cat <<'E'\n{shown}E")
    assert timeline.systemd_times() == {
        "cloud-init began": pytest.approx(1, abs=0.05),
        "cloud-init ended": pytest.approx(3, abs=0.05),
    }


def test_a_service_that_starts_again_carries_its_timeline_on(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    Reporter(path, quiet=True).running("download", "Downloading.")
    first = (files.read_json(path) or {})["timeline"]["download"]
    time.sleep(0.02)
    again = Reporter(path, quiet=True)
    again.running("download", "Downloading.")
    again.done("fetch", "Here.")
    kept = (files.read_json(path) or {})["timeline"]
    assert kept["download"] == first < kept["done"]


def test_a_report_says_when_its_work_began(tmp_path: Path) -> None:
    path = tmp_path / "status" / "model.json"

    def began() -> str:
        return str((files.read_json(path) or {})["began"])

    reporter = Reporter(path, quiet=True)
    time.sleep(0.01)
    reporter.running("look-up", "Looking.")
    first = began()
    reporter.done("download", "Here.")
    entry = files.read_json(path) or {}
    assert entry["began"] == first < entry["since"]
    time.sleep(0.01)
    reporter.running("look-up", "Once more.")
    assert began() > first


def test_the_timeline_is_kept_from_the_first_answer_on(
    places: Places, all_healthy: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    Reporter(places.status("model"), quiet=True).running("download", "Downloading.")
    publish_once(places, all_healthy, monkeypatch)
    kept = places.timeline.read_text()
    places.status("model").unlink()
    publish_once(places, all_healthy, monkeypatch)
    assert places.timeline.read_text() == kept
    spans = json.loads(command(places.root, "status", "--json").stdout)["timeline"]
    assert [span["name"] for span in spans][0] == "power-on"
    assert {"download", "chat port answers", "first token possible"} <= {span["name"] for span in spans}
    people = command(places.root, "status", "--timeline").stdout
    assert "first token possible" in people and "download" in people


def entry(unit: str, message: object, priority: str = "6") -> dict[str, object]:
    """An entry as `journalctl --output=json` gives it."""
    return {
        "_SYSTEMD_UNIT": unit,
        "MESSAGE": message,
        "PRIORITY": priority,
        "__REALTIME_TIMESTAMP": "1795341600000000",
        "__CURSOR": "s=1",
        "_BOOT_ID": "b",
    }


SHARDS = "Loading safetensors checkpoint shards:  40% Completed | 2/5"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            entry(services.MODEL, "Looking up acme/tiny at https://hub.example.", "5"),
            "Looking up acme/tiny at https://hub.example.",
        ),
        (entry(services.MODEL, "Trying with hf_abcdefgh12345678.", "5"), "Trying with ********."),
        (entry(services.VLLM, f"(EngineCore pid=9) {SHARDS} [00:01<00:02,  1.2s/it]"), SHARDS),
        (entry(services.VLLM, list(f"\r{SHARDS} [00:01<00:02]".encode())), SHARDS),
        (entry(services.VLLM, "engine: load running: Loading acme/tiny"), "load running: Loading acme/tiny"),
        (
            entry(services.VLLM, "INFO 11-22 08:00:00 [kv_cache_utils.py:1087] GPU KV cache size: 123,456 tokens"),
            "GPU KV cache size: 123,456 tokens",
        ),
    ],
)
def test_log_lines_that_may_be_seen(given: dict[str, object], shown: str) -> None:
    line = journal.published(given)
    assert line and (line.text, line.at) == (shown, "2026-11-22T10:00:00+00:00")


@pytest.mark.parametrize(
    "given",
    [
        entry(services.MODEL, "Traceback (most recent call last):"),
        entry(services.MODEL, "httpx2.ConnectError: token hf_abcdefgh12345678"),
        entry(services.VLLM, "Received request cmpl-1: prompt: 'engine: load running: my secret'"),
        entry(services.VLLM, "engine: serve failed: ValueError: what the user wrote", "5"),
        entry(services.OPEN_WEBUI, "Looking up", "5"),
        entry("ssh.service", "Accepted publickey", "5"),
        {"MESSAGE": None},
        {},
    ],
)
def test_log_lines_that_may_not(given: dict[str, object]) -> None:
    assert journal.published(given) is None


def test_the_journal_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps(entry(services.MODEL, f"Line {number}.", "5")) for number in range(20)]
    fake(tmp_path, monkeypatch, "journalctl", f"cat <<'E'\nnot json\n[]\n{chr(10).join(lines)}\nE\nsleep 1")
    tail = journal.Tail()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (not tail.lines or tail.lines[-1].text != "Line 19."):
        time.sleep(0.02)
    assert [line.text for line in tail.lines] == [f"Line {number}." for number in range(8, 20)]


def test_reports_are_notices_in_the_journal(tmp_path: Path) -> None:
    script = "\n".join(
        (
            "from pathlib import Path",
            "from aisandbox.instance.observe.report import Reporter",
            f"Reporter(Path('{tmp_path}/report')).done('fetch', 'Done.')",
        )
    )
    for environment, printed in (({"JOURNAL_STREAM": "8:1"}, "<5>Done.\n"), ({}, "Done.\n")):
        clean = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        said = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**clean, **environment}
        )
        assert said.stderr == printed


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that writes down how it was called."""
    log = tmp_path / "journalctl-calls"
    fake(tmp_path, monkeypatch, "journalctl", f'for word in "$@"; do echo "$word"; done > {log}')
    return log


def test_logs_can_be_narrowed(places: Places, journalctl: Path) -> None:
    assert command(places.root, "logs", "vllm", "--since", "-10min").exit_code == 0
    assert journalctl.read_text().splitlines() == ["--output=short-iso", "--since=-10min", "--unit=vllm.service"]
    assert command(places.root, "logs", "sandbox", "-n", "5").exit_code == 0
    words = journalctl.read_text().splitlines()
    assert "--lines=5" in words and words[2:] == [f"--unit={unit}" for unit in services.SANDBOX]
    assert command(places.root, "logs").exit_code == 0
    assert {"--lines=100", "--unit=nginx.service"} <= set(journalctl.read_text().splitlines())


def test_logs_of_an_unknown_service_name_those_there_are(places: Places, journalctl: Path) -> None:
    result = command(places.root, "logs", "vlm")
    assert result.exit_code == 2
    assert "vllm" in result.stderr and "sandbox" in result.stderr
    assert not journalctl.exists()


def test_logs_need_rights(places: Places, journalctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "getegid", lambda: 65534)
    monkeypatch.setattr(os, "getgroups", list)
    result = command(places.root, "logs")
    assert result.exit_code == 1
    assert "sudo aisandbox logs" in result.stderr
    assert not journalctl.exists()


def test_the_login_message_is_published_and_taken_at_once(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(places)
    report(places, "model", "running", **DOWNLOADING)
    publish_once(places, MANIFEST, monkeypatch)
    text = places.published_motd.read_text()
    assert "Downloading acme/tiny." in text
    assert f"ssh -L {MANIFEST.ports['sandbox'].port}:localhost" in text
    template = REPOSITORY / "roles" / "motd" / "templates" / "motd.sh.j2"
    script = template.read_text().replace("{{ manifest.paths.run }}", str(places.run))
    began = time.monotonic()
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == text
    assert time.monotonic() - began < 0.5
    # A state that is not kept up to date any more is not believed.
    os.utime(places.published_status, (1, 1))
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout != text


def test_what_is_published_is_never_2_seconds_old(places: Places) -> None:
    """From a service's report to the published file; the page asks for that every 500 ms (test_progress_page)."""
    run = subprocess.Popen([sys.executable, "-m", "aisandbox.instance", "--root", str(places.root), "status-publish"])
    try:
        wait_until(places.published_status.exists, 20)
        worst = 0.0
        for number in range(5):
            report(places, "model", "running", message=f"News {number}.")
            began = time.monotonic()
            wait_until(lambda: f"News {number}." in places.published_status.read_text(), 5)  # noqa: B023
            worst = max(worst, time.monotonic() - began)
        assert worst < 1.2
    finally:
        run.terminate()
        run.wait(10)


def wait_until(met: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def fake_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that answers `show`, and writes down how it was called."""
    log = tmp_path / "calls"
    fake(tmp_path, monkeypatch, "systemctl", f'echo "$@" >> {log}\n[ "$1" != show ] || cat <<\'E\'\n{SHOW}\nE')
    return log


def test_units_are_those_that_exist(fake_systemctl: Path) -> None:
    (unit,) = services.units()
    assert unit == services.Unit(name="vllm.service", active="failed", sub="failed", result="exit-code", restarts=4)


def test_restarting_also_forgets_earlier_failures(fake_systemctl: Path) -> None:
    services.restart(services.VLLM)
    assert fake_systemctl.read_text().splitlines() == [
        "reset-failed vllm.service",
        "restart --no-block vllm.service",
    ]


def test_without_systemd_no_units_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert services.units() == ()


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
    resolved = Deployment.load(places.resolved)
    assert resolved and len(resolved.problems) == 2


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
    assert not places.resolved.exists()


def test_status_for_people_and_for_programs(places: Places) -> None:
    appliance.options(places, "model: typo\n")
    configure.apply(places, MANIFEST)
    people = command(places.root, "status").stdout
    assert "AI Sandbox 1.2.3: starting" in people
    assert "is not a valid model" in people
    assert json.loads(command(places.root, "status", "--json").stdout)["model"] == GUIDE


def test_addresses_and_commands_are_never_cut_off(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    resolve(places)
    overview = status.compose(places, MANIFEST)
    people = command(places.root, "status").stdout.splitlines()
    for endpoint in overview.endpoints:
        assert [line for line in people if endpoint.url in line and endpoint.tunnel in line]


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
    for warning in notices.warnings(MANIFEST, Access()):
        assert warning.text in text and warning.fix in text
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
    assert ours <= set(services.SERVICES)
