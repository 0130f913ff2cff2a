"""Whatever goes wrong on a running machine: SSH, status, progress page and chat stay up, the message says why, and the
fix, once applied, needs no reboot."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from aisandbox.builder import up
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from tests.support import https, hub, machines, nvml
from tests.support import models as tiny
from tests.support.bridge import bridge
from tests.support.machines import MANIFEST, Visitor, output, published, status, url, wait_for
from tests.support.nvml import Card

GUIDE = MANIFEST.embedded_model.id
TOKEN = "hf_" + "Valid" * 6
LARGE = 64 * 10**9
"""Bytes of weights that no test machine has memory for."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub.Hub]:
    """A hub on the machine's network with a good model and one for every way to be bad."""
    folder = tmp_path_factory.mktemp("hub") / "example"

    def model(name: str, **changes: object) -> Path:
        config = tiny.write(folder / name) / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        return folder / name

    for name in ("tiny", "later", "gated", "slow"):
        model(name)
    model("long", max_position_embeddings=4_000_000)
    model("strange", architectures=["StrangeForCausalLM"])
    garbage = model("broken") / "model.safetensors"
    garbage.write_bytes(os.urandom(garbage.stat().st_size))
    huge = model("huge")
    os.truncate(huge / "model.safetensors", LARGE)
    with bridge() as network, hub.running(folder.parent, bind=network.gateway) as running:
        # Nobody downloads it, so nobody needs to read 64 GB of zeros.
        running.assume_digest(huge / "model.safetensors", "0" * 64)
        running.faults.gated, running.faults.accepted, running.faults.token = (
            {"example/gated"},
            {"example/gated"},
            TOKEN,
        )
        yield running


@pytest.fixture(scope="module")
def machine(image: Layer, models: hub.Hub) -> Iterator[Machine]:
    with machines.booted("test-failures", image, user_data(models)) as machine:
        yield machine


@pytest.fixture(autouse=True)
def recovered(machine: Machine, models: hub.Hub) -> Iterator[None]:
    """Every case starts from the embedded guide, served."""
    yield
    models.faults.unavailable = 0
    unset = " ".join(f"--unset {key}" for key in ("model", "hf_token", "max_model_len"))
    machine.run(f"sudo aisandbox configure {unset} --set hub_endpoint={models.endpoint}", check=False)
    machines.settle(machine)
    wait_for("the guide", lambda: names(machine)[:1] == [GUIDE])


def names(machine: Machine) -> list[str]:
    """What the API serves now; empty while it serves nothing."""
    try:
        return [model["id"] for model in httpx.get(url(machine, "api", "/v1/models"), timeout=5).json()["data"]]
    except (httpx.TransportError, ValueError, KeyError):
        return []


def configure(machine: Machine, arguments: str) -> str:
    result = machine.run(f"sudo aisandbox configure {arguments}", check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def told(machine: Machine, *texts: str) -> dict[str, Any]:
    """Wait until the state has a problem with all these texts; it stands on the progress page and at login, too."""
    found: dict[str, Any] = {}

    def there() -> bool:
        if not published(machine)["problems"]:
            return False
        problems = status(machine)["problems"]
        found.update(next((p for p in problems if all(t in json.dumps(p, ensure_ascii=False) for t in texts)), {}))
        return bool(found)

    try:
        wait_for(f"a problem with {texts}", there, 180)
    except TimeoutError:
        pytest.fail(f"no problem with {texts}: {json.dumps(status(machine)['problems'], indent=1)}")
    # How often something has crashed changes all the time, and its last words are not for everyone.
    reason = found["reason"].partition(" has crashed ")[0]
    wait_for("the progress page", lambda: reason in str(published(machine)["problems"]), 10)
    assert httpx.get(url(machine, "chat", "/aisandbox/progress.html")).status_code in (200, 503)
    assert reason in output(machine, "run-parts /etc/update-motd.d")
    assert found["fix"]
    return found


def still_chats(machine: Machine) -> None:
    wait_for("an answer", lambda: bool(names(machine)), 60)
    has_chat_page(machine)
    assert Visitor(machine).ask(names(machine)[0], "Who are you?")


def has_chat_page(machine: Machine) -> None:
    """Open WebUI starts anew with another default model."""
    wait_for("the chat page", lambda: httpx.get(url(machine, "chat", "/health")).status_code == 200, 60)


def becomes(machine: Machine, model: str) -> None:
    """The fix was applied: the model is served without a reboot, and nothing is left to complain about."""
    wait_for(model, lambda: names(machine)[:1] == [model], 120)
    wait_for("no problem left", lambda: published(machine)["problems"] == [] == status(machine)["problems"], 30)
    has_chat_page(machine)


def test_a_typo_in_the_models_name(machine: Machine) -> None:
    configure(machine, "--model example/tinny")
    problem = told(machine, "There is no model example/tinny")
    assert "example/tiny" in problem["fix"] + problem["reason"], "the nearest name is suggested"
    # `make up` says so, too.
    shown = up.summary(machine)
    assert f"model: {GUIDE}" in shown and problem["reason"] in shown and problem["fix"] in shown
    still_chats(machine)
    configure(machine, "--model example/tiny")
    becomes(machine, "example/tiny")


def test_a_gated_model(machine: Machine) -> None:
    configure(machine, "--model example/gated")
    told(machine, "example/gated", "gated", "hf_token")
    still_chats(machine)
    configure(machine, "--set hf_token=hf_" + "Wrong" * 6)
    problem = told(machine, "token", "example/gated", "refused")
    assert "Wrong" not in json.dumps(problem)
    configure(machine, f"--set hf_token={TOKEN}")
    becomes(machine, "example/gated")


def test_a_model_too_large_is_refused_before_it_is_downloaded(machine: Machine, models: hub.Hub) -> None:
    sent = models.sent
    configure(machine, "--model example/huge")
    problem = told(machine, "example/huge", "64")
    assert "--model" in problem["fix"]
    assert models.sent - sent < 10**6
    still_chats(machine)


def test_an_architecture_that_vllm_does_not_know(machine: Machine) -> None:
    configure(machine, "--model example/strange")
    told(machine, "StrangeForCausalLM")
    still_chats(machine)


def test_corrupted_weights(machine: Machine) -> None:
    """Broken at the publisher's: every byte arrives as it was sent, and nothing can load it."""
    configure(machine, "--model example/broken")
    told(machine, "example/broken", "corrupt")
    still_chats(machine)


def test_a_model_that_fails_leaves_the_one_before_and_the_history(machine: Machine) -> None:
    configure(machine, "--model example/tiny")
    becomes(machine, "example/tiny")
    Visitor(machine).keep("said to the tiny model")
    configure(machine, "--model example/broken")
    told(machine, "example/broken")
    wait_for("the model before", lambda: names(machine)[:1] == ["example/tiny"], 120)
    has_chat_page(machine)
    assert "said to the tiny model" in Visitor(machine).history()


def test_a_hub_that_is_down_and_comes_back(machine: Machine, models: hub.Hub) -> None:
    models.faults.status, models.faults.unavailable = 503, 10**6
    configure(machine, "--model example/later")
    wait_for("the wait", lambda: "Trying again" in str(published(machine)["phases"]), 60)
    still_chats(machine)
    models.faults.unavailable = 0
    becomes(machine, "example/later")


def test_no_network_at_all(machine: Machine) -> None:
    configure(machine, "--model example/other --set hub_endpoint=http://192.0.2.1:9")
    output(machine, "sudo ip route add unreachable 192.0.2.0/24")
    try:
        configure(machine, "")
        wait_for("the wait", lambda: "cannot be reached" in str(published(machine)["phases"]), 60)
        still_chats(machine)
    finally:
        output(machine, "sudo ip route del unreachable 192.0.2.0/24")


def test_a_wrong_clock(machine: Machine, tmp_path: Path) -> None:
    """The machine's clock is this host's; to it, a certificate of another decade looks as to one with a wrong clock."""
    with bridge() as network, https.running(tmp_path, 2080, 2090, bind=network.gateway) as (endpoint, _):
        configure(machine, f"--model example/other --set hub_endpoint={endpoint}")
        wait_for("the wait", lambda: "The clock of this instance says" in str(published(machine)["phases"]), 60)
        still_chats(machine)


def test_a_full_disk(machine: Machine) -> None:
    cache = f"{MANIFEST.paths.data}/models/hub"
    output(machine, f"sudo rm -rf {cache}/models--example--tiny")
    output(machine, f"sudo mount -t tmpfs -o size=64m,uid=vllm,gid=vllm tmpfs {cache}")
    try:
        configure(machine, "--model example/tiny")
        told(machine, "example/tiny", "disk")
    finally:
        output(machine, f"sudo umount --lazy {cache}")
    still_chats(machine)
    configure(machine, "")
    becomes(machine, "example/tiny")


def test_out_of_memory_at_start_is_tried_once_with_less(machine: Machine) -> None:
    configure(machine, "--model example/long --set max_model_len=2000000")
    problem = told(machine, "max_model_len")
    wait_for("the model with less context", lambda: names(machine)[:1] == ["example/long"], 180)
    assert "2000000" in json.dumps(problem) or "2,000,000" in json.dumps(problem)
    configure(machine, "--set max_model_len=4096")
    becomes(machine, "example/long")


@pytest.fixture
def cuda(machine: Machine, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Makes the machine take itself for one of a cuda image, with the GPUs that the double tells of."""
    library = nvml.build(tmp_path)
    release, place = f"{MANIFEST.paths.opt}/release.json", "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"

    def install(answers: str) -> None:
        put(machine, library.read_bytes(), place)
        put(machine, answers.encode(), "/etc/nvml-double")

    output(machine, f'sudo sed -i.kept \'s/"cpu"/"cuda"/\' {release}')
    yield install
    output(machine, f"sudo mv {release}.kept {release}; sudo rm -f {place} /etc/nvml-double")
    configure(machine, "")


def processor_chats(machine: Machine) -> None:
    def engine() -> str:
        return next(str(phase["message"]) for phase in status(machine)["phases"] if phase["phase"] == "engine")

    wait_for("the guide", lambda: f"Serving {GUIDE} on the processor" in engine(), 120)
    still_chats(machine)


def put(machine: Machine, content: bytes, path: str) -> None:
    command = machine.ssh_command(f"sudo tee {path} >/dev/null")
    subprocess.run(command, input=content, check=True)


def test_no_gpu_on_a_cuda_image(machine: Machine, cuda: Callable[[str], None]) -> None:
    configure(machine, "")
    told(machine, "no NVIDIA GPU")
    processor_chats(machine)


def test_a_driver_too_old(machine: Machine, cuda: Callable[[str], None]) -> None:
    cuda(nvml.recorded(Card("NVIDIA L4", 23034, (8, 9)), driver="535.261.03", cuda=12020))
    configure(machine, "")
    told(machine, "535", "580")
    processor_chats(machine)


def test_a_service_that_crashes_again_and_again(machine: Machine) -> None:
    folder = "/etc/systemd/system/open-webui.service.d"
    output(machine, f"sudo mkdir -p {folder}")
    put(machine, b"[Service]\nExecStartPre=/bin/false\n", f"{folder}/broken.conf")
    try:
        output(machine, "sudo systemctl daemon-reload; sudo systemctl kill --kill-whom=main --signal=KILL open-webui")
        told(machine, "open-webui", "crash")
        assert status(machine)["state"] == "failed"
        assert names(machine) == [GUIDE], "the API works on"
    finally:
        output(machine, f"sudo rm -r {folder}; sudo systemctl daemon-reload")
    wait_for("the chat page", lambda: machines.ready(machine), 120)


def test_a_power_cut_during_the_download(machine: Machine, image: Layer, models: hub.Hub) -> None:
    models.faults.bytes_per_second = 300_000
    configure(machine, "--model example/slow")

    def fetched() -> int:
        model = next(phase for phase in published(machine)["phases"] if phase["phase"] == "model")
        return int(model.get("bytes_done") or 0)

    wait_for("some of it", lambda: fetched() > 1_000_000, 60)
    machine.cut_power()

    def still() -> bool:
        before = models.sent
        time.sleep(1)
        return models.sent == before

    # The hub goes on for a while with a connection that nobody reads any more.
    wait_for("the end of what was under way", still, 60)
    cut = models.sent
    models.faults.bytes_per_second = None
    machines.start(machine, image, user_data(models))
    becomes(machine, "example/slow")
    whole = (models.folder / "example" / "slow" / "model.safetensors").stat().st_size
    assert models.sent - cut < whole - 500_000, "it went on where it was"


def test_a_power_cut_during_configure(machine: Machine, image: Layer, models: hub.Hub) -> None:
    loop = "for i in $(seq 100); do sudo aisandbox configure --set served_name=name-$i; done"
    process = subprocess.Popen(machine.ssh_command(loop), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(3.3)
    machine.cut_power()
    process.wait()
    machines.start(machine, image, user_data(models))
    wait_for("a name of the loop", lambda: names(machine)[:1] != [] and names(machine)[0].startswith("name-"), 60)
    assert status(machine)["problems"] == []
    configure(machine, "--unset served_name")


def user_data(models: hub.Hub) -> str:
    """The sandbox has no part in any of this."""
    return f"#cloud-config\naisandbox: {{hub_endpoint: '{models.endpoint}', sandbox: 'off'}}\n"
