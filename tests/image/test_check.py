"""The image check where it counts: the baked image, its disk, and a sealed builder (tests/boot has a machine)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aisandbox.builder import bake
from aisandbox.builder.container import OVERLAY_OPTIONS, enter_namespaces
from aisandbox.builder.image import write_image
from aisandbox.builder.layers import Layer, Store, load
from aisandbox.builder.machine import make_key
from aisandbox.builder.progress import Phases
from aisandbox.builder.seed import ssh_user_data, write_seed_dir
from aisandbox.manifest import REPOSITORY
from tests.support.checks import Report, command, findings, having
from tests.support.cloud.hypervisor import Hypervisor, Instance, Place, Seed, stock_image
from tests.support.machines import output, wait_for

WAIVED = {"tokens"}
SEED = "/var/lib/cloud/seed/nocloud"


def over(lower: str, folder: Path, *arguments: str) -> Report:
    """The report of directories as one root file system."""
    folder.mkdir()
    mount = f"mount -t overlay overlay -o 'ro,lowerdir={lower},{OVERLAY_OPTIONS}' {folder}"
    check = f"{sys.executable} -m aisandbox.builder check {folder} --json --offline {' '.join(arguments)}"
    argv = [*enter_namespaces(), "sh", "-c", f"{mount} && {check}"]
    result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.stdout, result.stderr
    report: Report = json.loads(result.stdout)
    return report


def test_the_baked_image_passes(image: Layer) -> None:
    report = command()
    assert having(report, "error", "warning") == set() and not report["failed"]
    assert having(report, "waived") == WAIVED
    assert having(report, "not checked") == {
        "security-updates", "partitions", "failed-units", "broken-cycles", "listening-ports"
    }  # fmt: skip


def test_the_bake_has_kept_its_report(image: Layer) -> None:
    log = (Store().path(image) / "log").read_text()
    assert "the baked image: passed: " in log


def test_a_fault_in_the_baked_image_is_found(image: Layer, tmp_path: Path) -> None:
    plant = tmp_path / "plant"
    (plant / "root/.ssh").mkdir(parents=True)
    (plant / "root/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA builder\n")
    (plant / "root").chmod(0o700)
    (plant / "var/log").mkdir(parents=True)
    (plant / "var/log/dpkg.log").write_text("2026-11-22 install\n")
    report = over(f"{plant}:{Store().lower_directories(image)}", tmp_path / "root")
    assert having(report, "error") == {"root-ssh-files", "logs"}
    assert findings(report, "root-ssh-files") == ["/root/.ssh/authorized_keys"]


@pytest.mark.timeout(1800)
def test_the_written_disk_passes(image: Layer) -> None:
    with Phases() as phases:
        files = write_image(image, phases)
    (disk,) = [path for path in files if path.suffix == ".raw"]
    report = command(disk, "--target", "azure")
    # Of what Azure asks for, the disk itself has all but the agent, which the bake on Azure brings.
    assert having(report, "error", "warning") == {"azure-agent"}
    assert having(report, "waived") == WAIVED | {"azure-root-delay"}
    assert "partitions" in having(report, "ok")


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hypervisor, Instance]]:
    """A machine of a platform, with Debian and all below the appliance, that somebody has baked on."""
    with Phases() as phases:
        for layer in load("cpu")["appliance"].parents:
            bake.bake("cpu", phases, until=layer.name)
    folder = tmp_path_factory.mktemp("sealing")
    key = make_key(folder)

    def given(place: Place) -> Seed:
        write_seed_dir(
            folder / "seed",
            instance_id="sealing",
            hostname="packer-1234",
            user_data=ssh_user_data(key.with_suffix(".pub").read_text().strip(), "debian", None),
            network_config=place.network.network_config(place.address, place.nameservers),
        )
        return Seed({folder / "seed": SEED})

    with Hypervisor(folder / "machines") as hypervisor:
        instance = hypervisor.boot("sealing", stock_image("cpu"), given)
        instance.login = ("debian", key)
        instance.wait_for_ssh()
        wait_for("cloud-init", lambda: instance.run("cloud-init status --wait", check=False).returncode in (0, 2))
        traces = (
            "useradd --create-home bob; echo 'bob:secret-of-bob' | chpasswd; echo secret >/root/.bash_history;"
            "mkdir -p /root/.cache/uv /root/.ssh; echo x >/root/.cache/uv/x; echo x >/root/notes;"
            "echo x >/tmp/left; echo x >/var/log/apt/history.log.1.gz; logger trace of the builder; sync"
        )
        output(instance, f"sudo sh -c {json.dumps(traces)}")
        yield hypervisor, instance


@pytest.fixture(scope="module")
def sealed(builder: tuple[Hypervisor, Instance], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the last command on the builder said, and the disk that it left."""
    hypervisor, instance = builder
    folder = tmp_path_factory.mktemp("sysprep")
    play = [{"hosts": "all", "become": True, "roles": ["sysprep"]}]
    (folder / "play.yml").write_text(json.dumps(play))
    facts = {"image_bake": True, "repo_root": str(REPOSITORY), "sysprep_online": False, "host_runs": True}
    manifest = "{{ lookup('ansible.builtin.file', repo_root ~ '/marketplace.yaml') | from_yaml }}"
    (folder / "facts.json").write_text(json.dumps({**facts, "manifest": manifest}))
    argv = [
        str(Path(sys.executable).with_name("ansible-playbook")), str(folder / "play.yml"), "-i", f"{instance.address},",
        "-u", instance.user, "--private-key", str(instance.key), "-e", f"@{folder / 'facts.json'}",
    ]  # fmt: skip
    environment = {**os.environ, "ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_NOCOLOR": "1"}
    played = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout[-4000:] + played.stderr[-1000:]
    told = instance.run("sudo sh /run/aisandbox-bake/seal", check=False, timeout=300)
    hypervisor.power_off(instance)
    snapshot = hypervisor.snapshot(instance)
    return told.stdout + told.stderr, snapshot.directory


NOT_BAKED = {
    "firewall", "product", "ssh-passwords", "ssh-root", "ssh-keepalive", "enabled-units", "root-password", "tokens",
    "waivers", "listening-ports",
}  # fmt: skip
"""What the roles before sysprep bring, which this builder has not seen."""


def test_a_sealed_builder_has_no_traces(sealed: tuple[str, Path]) -> None:
    told, _ = sealed
    failed = {line.split()[1] for line in told.splitlines() if line.startswith(("error ", "warning "))}
    assert "FAILED" in told and "product" in failed, told
    assert failed <= NOT_BAKED, told


def test_nothing_is_written_after_the_check(sealed: tuple[str, Path], tmp_path: Path) -> None:
    _, disk = sealed
    layers = load("cpu")["appliance"].parents
    lower = f"{disk}:{Store().lower_directories(*layers)}"
    report = over(lower, tmp_path / "root")
    assert having(report, "error", "warning") <= NOT_BAKED, report


def test_no_word_of_the_builder_is_on_the_disk(sealed: tuple[str, Path]) -> None:
    _, disk = sealed
    for word in ("packer-1234", "secret-of-bob", "trace of the builder", "bob"):
        search = [
            "grep",
            "--recursive",
            "--files-with-matches",
            "--text",
            "--word-regexp",
            "--",
            word,
            "etc",
            "var",
            "root",
        ]
        found = subprocess.run(search, cwd=disk, capture_output=True, text=True, check=False).stdout
        assert found == "", word
