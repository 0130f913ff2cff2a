"""Upgrades and rollbacks of a machine that runs and has users: real releases, real services, one machine for all."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aisandbox.builder import release as releases
from aisandbox.builder.layers import Layer, Store
from aisandbox.builder.machine import Machine
from aisandbox.builder.progress import Phases
from aisandbox.instance.keep.upgrade import rules
from aisandbox.manifest import REPOSITORY, Manifest
from tests.support import keys, machines
from tests.support.bridge import bridge
from tests.support.keys import Pair
from tests.support.machines import MANIFEST, Visitor, output, status, url, wait_for, wait_until_ready

USER_DATA = "#cloud-config\naisandbox:\n  api_key: kept-over-every-upgrade\n"
HEADERS = {"Authorization": "Bearer kept-over-every-upgrade"}
HOME = f"/home/{MANIFEST.os.default_user}"
"""What lies in /tmp is gone after a power cut."""
KEY_FILE = f"{HOME}/vendor.pub"
BAKED = MANIFEST.product.version
NEWER, BROKEN = "0.9.0", "0.9.1"
PAGE = f"{rules.OPT}/www/progress.html"
UNIT = f"{rules.UNITS}/jupyter.service"
ENGINE = f"{rules.OPT}/lib/aisandbox/instance/serve/engine.py"
ENGINE_CODE = f"{rules.OPT}/lib/aisandbox/instance/serve/__pycache__/engine.cpython-311.pyc"
UNDONE = 3
"""Exit status of an upgrade that was undone."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def machine(image: Layer, layer_listings: dict[str, str], pair: Pair) -> Iterator[Machine]:
    with machines.booted("t-upgrade", image, USER_DATA) as machine:
        Visitor(machine).keep("before every upgrade")
        yield machine


@pytest.fixture(scope="module")
def baked(image: Layer, pair: Pair) -> Path:
    """The release of the image itself, by the command. The machine has its files, so they need no archives."""
    command = [sys.executable, "-m", "aisandbox.builder", "release", "--key", str(pair.secret), "--no-archives"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def newer(image: Layer, pair: Pair, baked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with another progress page and another description of a unit."""
    changes = {
        PAGE: text_of(image, PAGE).replace("</body>", f"<!-- {NEWER} --></body>"),
        UNIT: text_of(image, UNIT).replace("Description=", f"Description={NEWER} of "),
    }
    return make(image, pair, baked, tmp_path_factory.mktemp("newer"), NEWER, changes)


def make(image: Layer, pair: Pair, since: Path, out: Path, version: str, changes: dict[str, str]) -> Path:
    """A release of the image with another version and other texts of some files."""
    top = out / "changes"
    release = json.dumps({"version": version, "flavour": "cpu"})
    for path, text in {f"{rules.OPT}/release.json": release, **changes}.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    facts = MANIFEST.model_dump(by_alias=True)
    facts["product"]["version"] = version
    facts["release"]["notes"] = {version: ["A better page."]}
    lower = f"{top}:{Store().lower_directories(image)}"
    with Phases() as phases:
        return releases.write(lower, Manifest.model_validate(facts), "cpu", pair.secret, phases, since=since, out=out)


def text_of(image: Layer, path: str) -> str:
    """Text of a file of the image."""
    files = (Store().rootfs(layer) / path for layer in reversed(image.stack))
    return next(file.read_text() for file in files if file.is_file())


def send(machine: Machine, path: Path, target: str) -> None:
    """Copy a file or folder to the machine."""
    command = ["tar", "--create", "--directory", str(path.parent), path.name]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    unpack = f"mkdir -p {target}.d && tar -x -C {target}.d && rm -rf {target} && mv {target}.d/{path.name} {target}"
    subprocess.run(machine.ssh_command(unpack), input=packed, check=True)


def upgrade(machine: Machine, arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `aisandbox upgrade`, which takes its time."""
    return machine.run(f"sudo aisandbox upgrade {arguments}", timeout=machines.PATIENCE, check=False)


def upgraded(machine: Machine, arguments: str) -> str:
    """What `aisandbox upgrade` prints when it succeeds."""
    done = upgrade(machine, arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def version(machine: Machine) -> str:
    return str(status(machine)["version"])


def serves(machine: Machine) -> None:
    """All that a user has is there, and everything answers."""
    wait_until_ready(machine)
    assert "before every upgrade" in Visitor(machine).history()
    assert httpx.get(url(machine, "api", "/v1/models")).status_code == 401
    body = {"model": MANIFEST.embedded_model.id, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    answer = httpx.post(url(machine, "api", "/v1/completions"), json=body, headers=HEADERS, timeout=60)
    assert answer.status_code == 200 and answer.json()["choices"][0]["text"]
    assert output(machine, "systemctl --failed --no-legend") == ""


def test_it_wants_to_know_whose_releases_to_trust(machine: Machine) -> None:
    done = upgrade(machine, "/tmp")
    assert done.returncode == 1
    assert "--public-key FILE" in done.stderr and "Nothing was changed." in done.stderr
    assert machine.run("aisandbox upgrade --rollback", check=False).returncode == 1
    done = upgrade(machine, "--rollback")
    assert (done.returncode, "no earlier release" in done.stderr) == (1, True)


def test_check_tells_what_would_be_done(machine: Machine, pair: Pair, newer: Path) -> None:
    send(machine, pair.public, KEY_FILE)
    send(machine, newer, f"{HOME}/newer")
    told = upgraded(machine, f"{HOME}/newer --check --public-key {KEY_FILE}")
    assert f"Upgrade from {BAKED} to {NEWER}" in told and "A better page." in told
    assert "Changed: appliance, system." in told and "Nothing was changed." in told
    assert version(machine) == BAKED


@pytest.mark.parametrize(
    ("file", "words"),
    [("state.json", '"phase": "switching"'), ("progress.log", "Checking that everything answers")],
    ids=["exchanging", "checking"],
)
def test_a_power_cut_in_the_middle_leads_back_to_the_release_before(
    machine: Machine, image: Layer, newer: Path, file: str, words: str
) -> None:
    command = machine.ssh_command(f"sudo aisandbox upgrade {HOME}/newer --public-key {KEY_FILE}")
    folder = machine.directory / "upper" / rules.STATE
    watched, state = folder / file, folder / "state.json"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as upgrade:
        deadline = time.monotonic() + machines.PATIENCE
        while not (watched.exists() and words in watched.read_text()):
            assert upgrade.poll() is None and time.monotonic() < deadline, "the upgrade did not get there"
            time.sleep(0.002)
        machine.cut_power()
        upgrade.kill()
    machines.start(machine, image, USER_DATA)
    wait_for("the end of the upgrade", lambda: not state.exists())
    serves(machine)
    overview = status(machine)
    assert overview["version"] == BAKED
    assert any(f"The upgrade to {NEWER} was undone" in problem["reason"] for problem in overview["problems"])
    upgraded(machine, "--forget")
    assert status(machine)["problems"] == []


def test_an_upgrade_keeps_everything_and_serves(machine: Machine, newer: Path) -> None:
    def handler(*arguments: object) -> http.server.SimpleHTTPRequestHandler:
        return http.server.SimpleHTTPRequestHandler(*arguments, directory=str(newer))  # type: ignore[arg-type]

    with bridge() as network, http.server.ThreadingHTTPServer((network.gateway, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host, port = server.server_address[:2]
        told = upgraded(machine, f"http://{host!s}:{port} --public-key {KEY_FILE}")
        server.shutdown()
    assert told.endswith(f"Version {NEWER} serves.")
    assert version(machine) == NEWER
    assert f"<!-- {NEWER} -->" in output(machine, f"cat /{PAGE}")
    assert f"{NEWER} of " in output(machine, "systemctl show --property=Description jupyter")
    serves(machine)
    assert status(machine)["problems"] == []
    told = upgraded(machine, f"{HOME}/newer --public-key {KEY_FILE}")
    assert "there is nothing to do" in told
    assert f"Version {BAKED} is kept" in upgraded(machine, "--status")


def test_a_rollback_leads_to_the_release_before(machine: Machine) -> None:
    Visitor(machine).keep("between")
    assert upgraded(machine, "--rollback").endswith(f"Version {BAKED} serves.")
    assert version(machine) == BAKED
    assert NEWER not in output(machine, f"cat /{PAGE}")
    assert NEWER not in output(machine, "systemctl show --property=Description jupyter")
    serves(machine)
    assert "between" in Visitor(machine).history()


def test_a_release_that_does_not_serve_is_undone_by_itself(
    machine: Machine, image: Layer, pair: Pair, baked: Path, tmp_path: Path
) -> None:
    # Without its byte code, which is believed whatever the source says.
    changes = {ENGINE: 'raise ImportError("no module named flux_capacitor")\n', ENGINE_CODE: ""}
    send(machine, make(image, pair, baked, tmp_path, BROKEN, changes), f"{HOME}/broken")
    done = upgrade(machine, f"{HOME}/broken --public-key {KEY_FILE}")
    assert done.returncode == UNDONE, done.stdout + done.stderr
    assert "vllm.service does not start" in done.stdout and "flux_capacitor" in done.stdout
    assert f"Version {BAKED} serves again." in done.stdout
    serves(machine)
    overview = status(machine)
    assert overview["version"] == BAKED
    told = " ".join(problem["reason"] for problem in overview["problems"])
    assert f"The upgrade to {BROKEN} was undone" in told and "flux_capacitor" in told
    # Strangers are not told what programs say.
    assert "flux_capacitor" not in httpx.get(url(machine, "chat", "/aisandbox/status.json")).text
    assert "flux_capacitor" in output(machine, "sudo journalctl --unit=aisandbox-upgrade")


def test_every_file_of_ours_belongs_to_the_release(image: Layer, baked: Path) -> None:
    """A role's new file that no upgrade would bring is noticed here."""
    owned = [path for component in json.loads((baked / "release.json").read_text())["components"]
             for path in component["paths"]]  # fmt: skip
    for layer in image.stack:
        root = Store().rootfs(layer)
        for path in root.rglob("*aisandbox*"):
            name = str(path.relative_to(root))
            if path.is_file() and not name.startswith(("etc/aisandbox/", "var/")):
                assert any(name == own or name.startswith(f"{own}/") for own in owned), name
