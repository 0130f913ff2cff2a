"""What deployers choose by user-data: served, kept over a new image, and explained when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import httpx
import pytest
import yaml

from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import Machine
from aisandbox.manifest import REPOSITORY
from tests.support import hub, machines, models
from tests.support.bridge import bridge
from tests.support.machines import MANIFEST, Visitor, output, status, url

MODEL = "example/tiny"
TOKEN = "hf_" + "Secret" * 6


def cloud_config(**settings: object) -> str:
    return "#cloud-config\n" + yaml.safe_dump(settings)


def served(machine: Machine) -> list[str]:
    return [model["id"] for model in httpx.get(url(machine, "api", "/v1/models")).json()["data"]]


def answer(machine: Machine, model: str) -> str:
    body = {"model": model, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    response = httpx.post(url(machine, "api", "/v1/completions"), json=body, timeout=60)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


@pytest.fixture(scope="module")
def model_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hub.Hub]:
    """A hub on the machines' network, with a model behind a token."""
    folder = tmp_path_factory.mktemp("hub")
    models.write(folder / MODEL)
    with bridge() as network, hub.running(folder, bind=network.gateway) as running:
        running.faults.gated, running.faults.accepted, running.faults.token = {MODEL}, {MODEL}, TOKEN
        yield running


@pytest.fixture(scope="module")
def chosen(image: Layer, model_hub: hub.Hub) -> Iterator[Machine]:
    """A machine whose deployer chose a gated model under another name."""
    section = {
        "model": MODEL,
        "hub_endpoint": model_hub.endpoint,
        "hf_token": TOKEN,
        "served_name": "tiny",
        "sandbox": "off",
    }
    with machines.booted("test-chosen", image, cloud_config(aisandbox=section)) as machine:
        yield machine


def test_the_chosen_model_is_served_by_its_name(chosen: Machine, model_hub: hub.Hub) -> None:
    assert served(chosen) == ["tiny"]
    assert answer(chosen, "tiny")
    assert model_hub.sent > 100_000
    overview = status(chosen)
    assert (overview["model"], overview["serving"], overview["problems"]) == (MODEL, MODEL, [])


def test_the_chat_page_offers_it(chosen: Machine) -> None:
    assert Visitor(chosen).ask("tiny", "Hello")


@pytest.mark.parametrize("user", ["vllm", "open-webui", "auxiliary", "www-data"])
def test_services_cannot_read_the_token(chosen: Machine, user: str) -> None:
    search = f"sudo --user={user} grep --recursive --files-with-matches --no-messages hf_Secret"
    places = "/etc /var/lib /var/log /run /tmp /opt/aisandbox/models"
    # 1: no match. A file that cannot be opened makes it 2.
    result = chosen.run(f"{search} --devices=skip {places}", check=False)
    assert (result.returncode in (1, 2), result.stdout) == (True, "")


def test_the_token_is_not_told(chosen: Machine) -> None:
    assert TOKEN not in output(chosen, "sudo journalctl --no-pager --output=cat")
    assert TOKEN not in output(chosen, "sudo find /run/aisandbox -type f -exec cat {} +")


@pytest.fixture(scope="module")
def moved(chosen: Machine, image: Layer, model_hub: hub.Hub) -> Machine:
    """A new instance on the data of `chosen`, which chose by a file, and knows no token."""
    visitor = Visitor(chosen)
    visitor.keep("on the old instance")
    kept = output(chosen, f"sudo sh -c 'cat {MANIFEST.paths.data}/secrets/*'")
    instance, sent = output(chosen, "cat /var/lib/cloud/data/instance-id"), model_hub.sent
    choice = yaml.safe_dump(
        {"model": MODEL, "hub_endpoint": model_hub.endpoint, "served_name": "moved", "sandbox": "off"}
    )
    file = {"path": "/etc/aisandbox/options.yaml", "permissions": "0600", "content": choice}
    machines.start(chosen, image, cloud_config(write_files=[file]))
    assert output(chosen, "cat /var/lib/cloud/data/instance-id") != instance
    assert output(chosen, f"sudo sh -c 'cat {MANIFEST.paths.data}/secrets/*'") == kept
    assert model_hub.sent == sent
    return chosen


def test_a_written_file_chooses_as_well(moved: Machine) -> None:
    assert served(moved) == ["moved"]
    assert answer(moved, "moved")
    assert status(moved)["problems"] == []


def test_history_lies_on_the_data_volume(moved: Machine) -> None:
    assert "on the old instance" in Visitor(moved).history()


@pytest.fixture(scope="module")
def mistaken(image: Layer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine whose deployer made every kind of mistake, in a checkout whose folder has blanks in its name."""
    file = {"path": "/etc/aisandbox/options.yaml", "content": "model: [unclosed\n"}
    section = {"model": "not a model", "max_model_lenght": 1024, "served_name": "still-good", "sandbox": "off"}
    message = MIMEMultipart()
    for name, text in {
        "choice": cloud_config(aisandbox=section, write_files=[file]),
        "broken": "#cloud-config\naisandbox:\n\tmodel: a/b\n",
    }.items():
        part = MIMEText(text, "cloud-config", "utf-8")
        part.add_header("Content-Disposition", "attachment", filename=name)
        message.attach(part)
    folder = tmp_path_factory.mktemp("boot") / "Müllers Würfel"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aisandbox.builder.machine.MACHINES", folder)
        with machines.booted("test-mistaken", image, message.as_string()) as machine:
            yield machine


def test_mistakes_do_not_stop_the_machine(mistaken: Machine) -> None:
    assert served(mistaken) == ["still-good"]
    assert answer(mistaken, "still-good")


@pytest.mark.parametrize(
    ("reason", "fix", "source"),
    [
        ("is not a valid model", "aisandbox configure --set model=", "user-data"),
        ("there is no such option", "Did you mean max_model_len?", "user-data"),
        ("line 2: not YAML", "Correct the line", "/etc/aisandbox/options.yaml"),
        ("line 3: not YAML", "Correct the line", "user-data, broken"),
    ],
)
def test_mistakes_are_explained(mistaken: Machine, reason: str, fix: str, source: str) -> None:
    problems = status(mistaken)["problems"]
    assert [p for p in problems if reason in p["reason"] and fix in p["fix"] and p["source"] == source], problems
    message = output(mistaken, "run-parts /etc/update-motd.d")
    assert reason in message and fix in message


@pytest.mark.parametrize(
    ("text", "line", "fix"),
    [
        ("#cloud-config\naisandbox:\n\tmodel: a/b\n", 3, "indent with spaces"),
        ("#cloud_config\naisandbox: {model: a/b}\n", 1, "write the first line exactly so: #cloud-config"),
        ("#cloud-config\n- model: a/b\n", 2, "key: value"),
    ],
    ids=["tab", "header", "list"],
)
def test_malformed_user_data_is_refused_before_anything_is_baked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, fix: str
) -> None:
    monkeypatch.setenv("AISANDBOX_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "user-data"
    file.write_text(text)
    command = [sys.executable, "-m", "aisandbox.builder", "up", "--name=test-refused", f"--user-data={file}"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert f"error: user-data, line {line}: " in result.stderr
    assert fix in result.stderr
    assert not (tmp_path / "cache").exists()
    assert not Machine("test-refused").directory.exists()
