"""`aisandbox doctor`: every check finds what it is for, and the support archive tells no secret."""

from __future__ import annotations

import base64
import email.utils
import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner, Result

from aisandbox.instance import cli, environment_file, files, scrub
from aisandbox.instance.fit.hardware import Gpu, Hardware
from aisandbox.instance.observe import doctor
from aisandbox.instance.observe.doctor import Finding, Instance, bundle, machine, model, network, services
from aisandbox.instance.places import Places
from aisandbox.instance.run.services import SANDBOX
from aisandbox.instance.serve import engine_causes
from aisandbox.manifest import REPOSITORY
from tests.support import appliance
from tests.support.appliance import MANIFEST
from tests.support.deployments import locate, resolve

Look = Callable[[Instance], Any]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return appliance.make(tmp_path / "root")


@pytest.fixture
def instance(places: Places) -> Instance:
    return Instance(places, MANIFEST, root=True)


def look(check: Look, instance: Instance) -> dict[str, list[Finding]]:
    """What the check finds, by severity."""
    found: dict[str, list[Finding]] = {}
    for finding in check(instance):
        found.setdefault(finding.severity, []).append(finding)
        if finding.severity in ("warning", "failed"):
            assert finding.fix, finding
    return found


def moved(instance: Instance, **ports: int) -> Instance:
    """The same instance with some ports moved."""
    all_ports = MANIFEST.ports | {
        name: MANIFEST.ports[name].model_copy(update={"port": port}) for name, port in ports.items()
    }
    return replace(instance, manifest=MANIFEST.model_copy(update={"ports": all_ports}))


def program(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    """A program that takes a real one's place."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


# Hardware


def with_hardware(instance: Instance, **parts: Any) -> Instance:
    instance.__dict__["hardware"] = Hardware(flavour="cuda", **parts)
    return instance


L4 = Gpu(name="NVIDIA L4", memory_gib=22.5, capability=(8, 9))


def test_a_gpu_with_a_recent_driver_is_well(instance: Instance) -> None:
    there = with_hardware(instance, gpus=(L4,), driver="580.65.06", cuda="13.0")
    assert [*look(machine.gpu, there)] == [*look(machine.driver, there)] == ["ok"]


def test_no_gpu_is_told_with_the_drivers_own_words(instance: Instance) -> None:
    (found,) = look(machine.gpu, with_hardware(instance, fault="Driver Not Loaded", fix="Load it."))["failed"]
    assert (found.cause, found.fix) == ("Driver Not Loaded", "Load it.")


def test_a_driver_too_old_for_cuda_is_one_fault_not_two(instance: Instance) -> None:
    old = with_hardware(instance, gpus=(L4,), driver="535.183.01", fault="too old", fix="Update it.")
    assert [*look(machine.gpu, old)] == ["ok"]
    (found,) = look(machine.driver, old)["failed"]
    assert "535.183.01" in found.text and "580" in found.cause


def test_the_cpu_flavour_needs_no_gpu_and_says_when_there_is_one(instance: Instance) -> None:
    assert [*look(machine.gpu, instance)] == [*look(machine.driver, instance)] == ["skipped"]
    assert [*look(machine.flavour, instance)] == ["ok"]
    device = instance.places.root / "sys/bus/pci/devices/0000:00:1e.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    assert [*look(machine.flavour, instance)] == ["warning"]
    instance.places.release.unlink()
    assert [*look(machine.flavour, instance)] == ["failed"]


# Disk, memory, clock, cloud-init


@pytest.mark.parametrize(
    ("free_gib", "inodes", "flag", "severities"),
    [
        (50, 900, 0, ["ok"]),
        (4, 900, 0, ["warning"]),
        (0.5, 900, 0, ["failed"]),
        (50, 10, 0, ["ok", "failed"]),
        (50, 900, os.ST_RDONLY, ["failed"]),
    ],
)
def test_disk_space_and_inodes(free_gib: float, inodes: int, flag: int, severities: list[str]) -> None:
    block = 4096
    blocks, free = 100 * 1024**3 // block, int(free_gib * 1024**3) // block
    usage = os.statvfs_result((block, block, blocks, free, free, 1000, inodes, inodes, flag, 255))
    assert [finding.severity for finding in machine.space("Data (/data)", usage)] == severities


def test_file_systems_without_inodes_have_enough() -> None:
    usage = os.statvfs_result((4096, 4096, 10**7, 10**7, 10**7, 0, 0, 0, 0, 255))
    assert [finding.severity for finding in machine.space("Data", usage)] == ["ok"]


def test_memory(instance: Instance) -> None:
    proc = instance.places.root / "proc"
    assert [*look(machine.memory, instance)] == ["skipped"]
    proc.mkdir()
    (proc / "meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable:    9000000 kB\n")
    (proc / "vmstat").write_text("oom_kill 0\n")
    assert [*look(machine.memory, instance)] == ["ok"]
    (proc / "meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable:    100000 kB\n")
    (proc / "vmstat").write_text("oom_kill 2\n")
    first, second = look(machine.memory, instance)["warning"]
    assert "Only 0.1" in first.text and "ended 2 programs" in second.text


def test_memory_of_this_machine(instance: Instance) -> None:
    here = replace(instance, places=replace(instance.places, root=Path("/")))
    assert look(machine.memory, here).keys() <= {"ok", "warning"}


@pytest.mark.parametrize(("said", "severity"), [("yes", "ok"), ("no", "warning")])
def test_the_clock(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, severity: str
) -> None:
    program(tmp_path, monkeypatch, "timedatectl", f"echo {said}")
    assert [*look(machine.clock, instance)] == [severity]


def test_no_timedatectl_is_no_fault(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, monkeypatch, "timedatectl", "echo 'Failed to connect to bus' >&2; exit 1")
    assert [*look(machine.clock, instance)] == ["skipped"]


@pytest.mark.parametrize(
    ("result", "status", "severity"),
    [
        (None, None, "skipped"),
        ({"datasource": "DataSourceEc2Local", "errors": []}, {"stage": None}, "ok"),
        ({"datasource": None, "errors": ["('scripts_user', RuntimeError('1 failed'))"]}, {}, "failed"),
        ({"errors": []}, {"recoverable_errors": {"WARNING": ["Unhandled key"]}}, "warning"),
    ],
)
def test_cloud_init(instance: Instance, result: object, status: object, severity: str) -> None:
    for name, content in (("result", result), ("status", status)):
        if content is not None:
            files.write_json(instance.places.cloud_run / f"{name}.json", {"v1": content})
    assert [*look(machine.cloud_init, instance)] == [severity]


# Services


def test_problems_of_the_configuration(instance: Instance) -> None:
    assert [*look(services.configuration, instance)] == ["failed"]
    here = instance_again(instance)
    resolve(here.places, problems=[{"option": "model", "value": "typo", "reason": "is not a model", "fix": "Choose."}])
    (found,) = look(services.configuration, here)["failed"]
    assert (found.text, found.fix) == ("model typo: is not a model", "Choose.")
    resolve(here.places)
    assert [*look(services.configuration, instance_again(here))] == ["ok"]


def instance_again(before: Instance) -> Instance:
    """The same place, looked at afresh."""
    return Instance(before.places, before.manifest, before.root)


UNIT = "Id={}\nLoadState=loaded\nActiveState={}\nSubState=x\nResult={}\nNRestarts={}\n"


def test_units_that_fail_crash_or_do_not_start(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = "\n".join(
        (
            UNIT.format("vllm.service", "activating", "exit-code", 9),
            UNIT.format("nginx.service", "failed", "exit-code", 0),
            UNIT.format("open-webui.service", "active", "success", 0),
        )
    )
    states = "printf 'enabled\\nenabled\\ndisabled\\n'"
    program(tmp_path, monkeypatch, "systemctl", f"[ $1 = show ] && cat <<'E' || {states}\n{blocks}\nE")
    found = look(services.units, instance)
    assert ["vllm.service" in finding.text for finding in found["failed"]] == [True, False]
    assert "nginx.service has failed" in found["failed"][1].text
    assert "open-webui.service is disabled" in found["warning"][0].text
    assert "1 of 3" in found["ok"][0].text


def test_where_systemd_does_not_answer_units_are_left_out(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert [*look(services.units, instance)] == ["skipped"]


def test_what_the_services_report(instance: Instance) -> None:
    report = {"phase": "fetch", "state": "failed", "message": "No such model.", "fix": "Choose another."}
    files.write_json(instance.places.status("model"), report)
    found = look(services.progress, instance)
    assert (found["failed"][0].text, found["failed"][0].fix) == ("No such model.", "Choose another.")
    assert found["skipped"]


SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {0}:{1:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1538 0100007F:ABCD 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
"""


def test_listening_sockets_by_the_kernels_table(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(SOCKETS.format("0100007F", 3001))
    (tmp_path / "tcp6").write_text(SOCKETS.format("00000000000000000000000001000000", 3000))
    found = [(str(address), port) for address, port in services.listening(tmp_path)]
    assert found == [("127.0.0.1", 3001), ("::1", 3000)]


def test_ports_that_are_missing_and_strangers(instance: Instance) -> None:
    net = instance.places.root / "proc" / "net"
    net.mkdir(parents=True)

    def listen(*sockets: tuple[str, int]) -> dict[str, list[Finding]]:
        rows = [SOCKETS.format(*socket).splitlines()[1] for socket in sockets]
        (net / "tcp").write_text("\n".join(["header", *rows]))
        return look(services.ports, instance_again(instance))

    everywhere, loopback = "00000000", "0100007F"
    well = [
        (everywhere, 22),
        (everywhere, 3000),
        (everywhere, 8000),
        (loopback, 3001),
        (loopback, 8002),
        (loopback, 8080),
    ]
    assert [*listen(*well, (loopback, 40000))] == ["ok"]
    (stranger,) = listen(*well, (everywhere, 6379))["warning"]
    assert "6379" in stranger.text
    (missing,) = listen(*well[:-1])["failed"]
    assert "8080" in missing.text and missing.fix == "sudo aisandbox logs sandbox-api"
    resolve(instance.places, access={"sandbox": "off", "domain": "ai.example.com"})
    assert [finding.text for finding in listen(*well[:-1])["failed"]] == [
        f"Nothing listens on port 80 ({MANIFEST.ports['http'].label})."
    ]
    files.write_json(instance.places.status("certificate"), {"phase": "x", "state": "done", "message": ""})
    assert "443" in listen(*well[:-1], (everywhere, 80))["failed"][0].text
    assert [*listen(*well[:-1], (everywhere, 80), (everywhere, 443))] == ["ok"]


@pytest.mark.parametrize(
    ("script", "severity"),
    [
        ("echo 'type filter hook input priority filter; policy drop;'", "ok"),
        ("echo No such file >&2; exit 1", "failed"),
    ],
)
def test_the_firewall(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, severity: str
) -> None:
    program(tmp_path, monkeypatch, "nft", script)
    assert [*look(services.firewall, instance)] == [severity]
    assert [*look(services.firewall, replace(instance, root=False))] == ["skipped"]


def test_secrets_that_others_can_read(instance: Instance) -> None:
    places = instance.places
    files.write(places.hf_token, "", 0o600)
    places.hf_token.parent.chmod(0o700)
    assert [*look(services.secrets, instance)] == ["ok"]
    places.hf_token.chmod(0o640)
    places.hf_token.parent.chmod(0o755)
    folder, file = look(services.secrets, instance)["failed"]
    assert folder.fix.startswith(f"sudo chmod 700 {places.hf_token.parent}")
    assert file.fix.startswith(f"sudo chmod 600 {places.hf_token}")


@pytest.mark.parametrize(("status", "severity"), [(200, "ok"), (401, "ok"), (500, "failed")])
def test_the_sandbox_answers(instance: Instance, status: int, severity: str) -> None:
    with server(status) as port:
        assert [*look(services.sandbox, moved(instance, sandbox=port))] == [severity]
    assert [*look(services.sandbox, moved(instance, sandbox=port))] == ["failed"]


# Model


def weights(path: Path, data: bytes = b"12345678", missing: int = 0) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, len(data)]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + data
    path.write_bytes(whole[: len(whole) - missing])


@pytest.fixture
def snapshot(instance: Instance) -> Path:
    folder = instance.places.hub_cache / "models--acme--tiny" / "snapshots" / ("b" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    weights(folder / "model-1.safetensors")
    files.write_json(folder / model.INDEX, {"weight_map": {"a": "model-1.safetensors"}})
    locate(instance.places, folder)
    return folder


def test_a_whole_model(instance: Instance, snapshot: Path) -> None:
    (found,) = look(model.cache, instance)["ok"]
    assert found.text == "acme/tiny is complete"


def test_no_model_yet(instance: Instance) -> None:
    assert [*look(model.cache, instance)] == ["skipped"]


@pytest.mark.parametrize("missing", [1, 8])
def test_a_truncated_file(instance: Instance, snapshot: Path, missing: int) -> None:
    weights(snapshot / "model-1.safetensors", missing=missing)
    (found,) = look(model.cache, instance)["failed"]
    assert "model-1.safetensors has" in found.text and "aisandbox configure" in found.fix


def with_header(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 50, with_header(b"[]"), with_header(b"{}") + b"x", with_header(b"[" * 100_000),
     with_header(b'{"w": {"data_offsets": [0, "8"]}}'), with_header(b'{"w": {"data_offsets": [0, 1e999]}}'),
     with_header(b'{"w": {"data_offsets": [0, ' + b"9" * 4300 + b"]}}")],
)  # fmt: skip
def test_a_file_that_is_something_else(instance: Instance, snapshot: Path, content: bytes) -> None:
    (snapshot / "model-1.safetensors").write_bytes(content)
    assert [*look(model.cache, instance)] == ["failed"]
    assert engine_causes.damaged_weights(snapshot) or content.endswith(b"x"), "more than whole is no damage"


def test_names_of_a_models_files_move_no_cursor(instance: Instance, snapshot: Path) -> None:
    files.write_json(snapshot / model.INDEX, {"weight_map": {"a": "\x1b[2Jx"}})
    assert "?[2Jx is missing." in look(model.cache, instance)["failed"][0].text


def test_files_that_are_missing(instance: Instance, snapshot: Path) -> None:
    files.write_json(snapshot / model.INDEX, {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    (snapshot / "config.json").unlink()
    assert [finding.text for finding in look(model.cache, instance)["failed"]] == [
        "acme/tiny: config.json is missing.",
        "acme/tiny: model-2.safetensors is missing.",
    ]


# Network


@contextmanager
def server(status: int = 200, **headers: str) -> Iterator[int]:
    """A server with one answer; gives its port."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") in (None, "Bearer hf_valid")
            self.send_response_only(status if allowed else 401)
            for name, value in {"Date": email.utils.formatdate(), "Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def at_hub(instance: Instance, address: str, token: str = "") -> Instance:
    resolve(instance.places, hub_endpoint=address)
    files.write(instance.places.hf_token, token, 0o600)
    return instance_again(instance)


def test_a_hub_that_answers_and_knows_the_token(instance: Instance) -> None:
    with server() as port:
        assert [*look(network.hub, at_hub(instance, f"http://127.0.0.1:{port}"))] == ["ok"]
        found = look(network.hub, at_hub(instance, f"http://127.0.0.1:{port}", "hf_valid"))
        assert found["ok"][-1].text == "the access token is valid"
        (refused,) = look(network.hub, at_hub(instance, f"http://127.0.0.1:{port}", "hf_other"))["failed"]
        assert "hf_token" in refused.fix and "hf_other" not in str(refused)


def test_a_clock_that_is_wrong(instance: Instance) -> None:
    with server(Date=email.utils.formatdate(time.time() + 7200)) as port:
        (found,) = look(network.hub, at_hub(instance, f"http://127.0.0.1:{port}"))["failed"]
    assert re.match(r"The clock is 7[12]\d\d s slow", found.text)


def test_a_hub_out_of_reach_is_a_failure_only_without_the_model(instance: Instance) -> None:
    there = at_hub(instance, "http://127.0.0.1:9")
    (found,) = look(network.hub, there)["failed"]
    assert "cannot be reached" in found.text and found.cause
    files.write_json(instance.places.status("model"), {"phase": "fetch", "state": "done", "message": "", "fix": ""})
    assert [*look(network.hub, there)] == ["warning"]


def test_a_hub_that_has_no_name(instance: Instance) -> None:
    (found,) = look(network.hub, at_hub(instance, "https://hub.invalid"))["failed"]
    assert found.text == "The name hub.invalid is not found."


def test_a_domain_that_leads_elsewhere(instance: Instance) -> None:
    def domain(name: str | None, own: str = "127.0.0.1") -> list[str]:
        resolve(instance.places, access={"domain": name})
        data = {"ds": {"meta_data": {"public-ipv4": own}}}
        files.write_json(instance.places.cloud_run / "instance-data.json", data)
        return [*look(network.domain, instance_again(instance))]

    assert domain(None) == ["skipped"]
    assert domain("localhost") == ["ok"]
    assert domain("localhost", "203.0.113.7") == ["warning"]
    assert domain("nowhere.invalid") == ["failed"]


@contextmanager
def https(folder: Path, days: int) -> Iterator[tuple[int, Path]]:
    """A server with a certificate for localhost of its own making; gives its port and the certificate."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["-keyout", str(key), "-out", str(certificate), "-days", str(days)]
    subprocess.run([*command, *names, *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    running = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    running.socket = context.wrap_socket(running.socket, server_side=True)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield running.server_address[1], certificate
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def test_the_certificate(instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*look(network.certificate, instance)] == ["skipped"]
    resolve(instance.places, access={"domain": "localhost"})
    for days, severity in ((60, "ok"), (3, "warning")):
        with https(tmp_path, days) as (port, certificate):
            there = moved(instance_again(instance), https=port)
            (untrusted,) = look(network.certificate, there)["failed"]
            assert "is not valid" in untrusted.text
            with monkeypatch.context() as patch:
                patch.setenv("SSL_CERT_FILE", str(certificate))
                assert [*look(network.certificate, there)] == [severity]
    files.write_json(
        instance.places.status("certificate"), {"phase": "x", "state": "running", "message": "Getting it."}
    )
    assert [*look(network.certificate, instance_again(instance))] == ["warning"]
    instance.places.status("certificate").unlink()
    (nothing,) = look(network.certificate, moved(instance_again(instance), https=1))["failed"]
    assert "Nothing answers by HTTPS" in nothing.text


# All of them


def test_checks_run_side_by_side_and_none_holds_up_the_others(instance: Instance) -> None:
    def slow(_: Instance) -> Iterator[Finding]:
        time.sleep(0.3)
        yield Finding(severity="ok", text="done")

    def hangs(_: Instance) -> Iterator[Finding]:
        threading.Event().wait(30)
        yield Finding(severity="ok", text="never")

    def crashes(_: Instance) -> Iterator[Finding]:
        raise ValueError("odd")
        yield

    began = time.monotonic()
    checks = {"a": slow, "b": slow, "c": slow, "hangs": hangs, "crashes": crashes}
    diagnosis = doctor.examine(instance, checks, timeout_s=1)
    assert time.monotonic() - began < 1.5
    found = {result.check: result.findings[0] for result in diagnosis.results}
    assert list(found) == list(checks)
    assert [found[name].severity for name in "abc"] == ["ok"] * 3
    assert found["hangs"].text == "No answer within 1 s."
    assert (found["crashes"].severity, found["crashes"].cause) == ("failed", "ValueError: odd")
    assert not diagnosis.healthy


def test_every_check_ends_on_a_bare_tree(tmp_path: Path) -> None:
    places = Places.of(MANIFEST, tmp_path)
    files.write_json(places.release, {"flavour": "cpu"})
    diagnosis = doctor.examine(Instance(places, MANIFEST, root=False))
    assert [result.check for result in diagnosis.results] == list(doctor.CHECKS)
    assert not [r for r in diagnosis.results for f in r.findings if "check itself" in f.text], diagnosis
    assert not diagnosis.complete


def command(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["--root", str(root), "doctor", *arguments])


def test_the_command_for_people_and_for_programs(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(places, problems=[{"reason": "is [bold]not[/] right", "fix": "Mend it."}])
    people = command(places.root)
    assert people.exit_code == 1
    assert "configuration FAILED" in people.stdout
    assert "is [bold]not[/] right" in people.stdout and "Mend it." in people.stdout
    programs = json.loads(command(places.root, "--json").stdout)
    assert {result["check"] for result in programs["results"]} == set(doctor.CHECKS)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo aisandbox doctor" in command(places.root).stderr
    monkeypatch.setattr(doctor, "examine", lambda instance: doctor.Diagnosis(results=(), complete=True))
    assert command(places.root).exit_code == 0


# The support archive

TOKEN = "hf_" + "Kj8dLq2Wz0"
API_KEY = "my.own~key-0123456789"
PASSWORD = "pa'ss\"w$rd,\\half"
GENERATED = "generated-0123456789-secret"
EMAIL = "somebody@example.com"
PROMPT = "tell me about my illness"
JOURNAL = f"""\
2026-11-22T08:00:00+0000 host vllm[1]: Authorization: Bearer {API_KEY}
2026-11-22T08:00:00+0000 host vllm[1]: https://user:{GENERATED}@proxy.example/x?token=abcdef123456
2026-11-22T08:00:01+0000 host vllm[1]: Received request cmpl-1: prompt: '{PROMPT}', params
2026-11-22T08:00:01+0000 host vllm[1]: {{"messages": [{{"role": "user", "content": "{PROMPT}"}}]}}
2026-11-22T08:00:02+0000 host vllm[1]: RuntimeError: CUDA out of memory
2026-11-22T08:00:03+0000 host model[1]: retry with {quote(PASSWORD, safe="")} and {json.dumps(PASSWORD)}
"""


@pytest.fixture
def archive(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Result, Path]:
    """An archive of an instance whose every corner holds secrets."""
    appliance.options(
        places,
        f"hf_token: {TOKEN}\napi_key: {API_KEY}\nchat_password: {json.dumps(PASSWORD)}\n"
        f"chat_email: {EMAIL}\nmodel: a/b\n",
    )
    resolve(places)
    files.write(places.hf_token, TOKEN, 0o600)
    files.write(places.secrets / "webui_secret_key", GENERATED + "\n", 0o600)
    settings = (
        f"WEBUI_SECRET_KEY={GENERATED}",
        f"ADMIN={environment_file.quoted(PASSWORD)}",
        "OTHER_API_KEY=unheard-of-key-77",
    )
    files.write(places.etc / "open-webui.env", "\n".join((*settings, "PLAIN=kept", "")))
    files.write(places.etc / "nginx" / "api-lock.conf", f'"~^[Bb]earer +{API_KEY.replace(".", "[.]")}$" "";')
    files.write(places.kept_metadata, f'{{"user-data": "{base64.b64encode(TOKEN.encode()).decode()} metadata-secret"}}')
    message = f"refused {TOKEN}"
    files.write_json(places.status("model"), {"phase": "x", "state": "failed", "message": message, "fix": "Mend it."})
    program(tmp_path, monkeypatch, "journalctl", f"cat <<'E'\n{JOURNAL}E")
    program(tmp_path, monkeypatch, "systemctl", "exit 1")
    # As on the machine itself, whose journal is asked.
    monkeypatch.setattr(Places, "live", property(lambda self: True))
    target = tmp_path / "support.tar.gz"
    return command(places.root, "--bundle", str(target)), target


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            member.name.removeprefix("aisandbox-support/"): archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }


def test_the_archive_holds_no_secret_and_no_prompt(archive: tuple[Result, Path]) -> None:
    held = contents(archive[1])
    planted = {
        TOKEN, API_KEY, PASSWORD, GENERATED, EMAIL, PROMPT, "unheard-of-key-77", "abcdef123456", "metadata-secret",
        json.dumps(PASSWORD)[1:-1], environment_file.quoted(PASSWORD)[1:-1], quote(PASSWORD, safe=""), "[.]own~key",
        base64.b64encode(TOKEN.encode()).decode(),
    }  # fmt: skip
    assert [(name, secret) for name, text in held.items() for secret in planted if secret in text] == []


def test_the_archive_holds_what_helps(archive: tuple[Result, Path]) -> None:
    result, path = archive
    held = contents(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {"README.txt", "doctor.json", "status.json", "resolved.json", "hardware.json", "reports/model.json"} <= set(
        held
    )
    assert "CUDA out of memory" in held["journal/vllm.service.txt"]
    assert "PLAIN=kept" in held["etc/open-webui.env"]
    assert "model: a/b" in held["etc/options.yaml"]
    assert not [name for name in held if "code-server" in name or "jupyter" in name or "metadata" in name]
    assert json.loads(held["doctor.json"])["results"]
    assert str(path) in result.stderr


def test_without_root_there_is_an_archive_all_the_same(places: Places, tmp_path: Path) -> None:
    """As another user, in a process of its own: this one is root, who may read everything."""
    appliance.options(places, f"hf_token: {TOKEN}\n")
    places.options.chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
    target = Path(tempfile.mkdtemp(prefix="bundle-")) / "support.tar.gz"
    target.parent.chmod(0o777)
    arguments = ["--root", str(places.root), "doctor", "--bundle", str(target)]
    code = f"import os, sys; sys.path[:] = {sys.path!r}; os.setgid(65534); os.setuid(65534)\n"
    code += f"from aisandbox.instance.cli import app; app({arguments!r})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert "Some checks need root" in said.stderr, said.stderr
    held = contents(target)
    shutil.rmtree(target.parent)
    assert held["etc/options.yaml"] == "(cannot be read: Permission denied)\n"
    assert TOKEN not in str(held)


def test_the_archive_overwrites_nothing_and_follows_no_link(places: Places, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "new")
    for target in (precious, link):
        result = command(places.root, "--bundle", str(target))
        assert result.exit_code == 1
        assert "Name another file" in result.stderr
    assert precious.read_text() == "mine"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "clean"),
    [
        ("max_tokens: 4096", "max_tokens: 4096"),
        ("tokenizer: llama", "tokenizer: llama"),
        ('"api_key": true', '"api_key": true'),
        ("api_key: null", "api_key: null"),
        ("--tool-call-parser hermes", "--tool-call-parser hermes"),
        ("basic settings and token generation", "basic settings and token generation"),
        ("Authorization: Basic dXNlcjpwYXNz1234", "Authorization: Basic ********"),
        ("authorization: bearer onlyletters", "authorization: bearer ********"),
        ("GET /v1/x?api_key=abc HTTP", "GET /v1/x?api_key=******** HTTP"),
        ("key AKIAIOSFODNN7EXAMPLE used", "key ******** used"),
        ("  admin_password: a b, c", "  admin_password: ********"),
        ("ssh://git:pw@host/x", "ssh://********@host/x"),
    ],
)
def test_what_looks_like_a_secret(given: str, clean: str) -> None:
    assert scrub.text(given) == clean


def test_private_keys_are_taken_out_also_when_cut_off() -> None:
    text = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n"
    assert "MHcCAQEE" not in scrub.text(text) + scrub.text(text + "-----END EC PRIVATE KEY-----\nrest")
    assert scrub.text(text + "-----END EC PRIVATE KEY-----\nrest").endswith("\nrest")


LONG = ("a", "token", "password.", "?", "&key", "http:/", "basic token ", "'", "ab_-", "-eyJaaaaaaaa")


@pytest.mark.parametrize("piece", LONG)
def test_no_line_takes_long(piece: str) -> None:
    began = time.process_time()
    scrub.text(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2


def test_nothing_short_is_masked_everywhere() -> None:
    assert scrub.text("a plain text", ("a", "plain")) == "a plain text"


def test_units_of_the_archive_are_those_of_the_instance() -> None:
    assert set(bundle.JOURNALS).isdisjoint(SANDBOX)
