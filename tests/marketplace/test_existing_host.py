"""ansible/site.yml over SSH: a booted host becomes an appliance, and stays the host that its owner knew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from aisandbox.builder import seed
from aisandbox.builder.host import HostSettings
from aisandbox.builder.machine import make_key
from aisandbox.manifest import REPOSITORY
from tests.marketplace import flow
from tests.support.cloud.hypervisor import Hypervisor, Instance, Place, Seed
from tests.support.machines import MANIFEST, reboot, wait_for

OWNER = "owner"
PORT = 2222
"""Where the owner's SSH listens beside the usual port."""
SEED = "/var/lib/cloud/seed/nocloud"
GUIDE = MANIFEST.embedded_model.id

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="machines need root"),
    pytest.mark.timeout(1800),
]


@dataclass(frozen=True)
class Host:
    """The host after the playbook, and what was known of it before."""

    instance: Instance
    dry_run: str
    touched: str
    """Files that the dry run before has changed."""
    output: str
    host_keys: str
    network: str


def user_data(public_key: str) -> str:
    port = f"Port 22\nPort {PORT}\n"
    config = {"write_files": [{"path": "/etc/ssh/sshd_config.d/50-owner.conf", "content": port}]}
    return seed.ssh_user_data(public_key, OWNER, "#cloud-config\n" + yaml.safe_dump(config))


def play(instance: Instance, settings: HostSettings, folder: Path, *words: str) -> str:
    """Run the playbook as its owner would, with this host's package sources; returns what it prints."""
    facts = folder / "facts.json"
    facts.write_text(
        json.dumps(
            {
                "bake_uv_environment": settings.uv_environment(),
                "bake_uv_environment_cpu_torch": settings.uv_environment(cpu_torch=True),
                "bake_npm_environment": settings.npm_environment(),
            }
        )
    )
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")), "ansible/site.yml", "-i", f"{instance.address},",
        "-u", OWNER, "--private-key", str(instance.key), "-e", f"ansible_port={PORT}", "-e", f"@{facts}", *words,
    ]  # fmt: skip
    ours = {"ANSIBLE_HOST_KEY_CHECKING": "False", "ANSIBLE_NOCOLOR": "1"}
    environment = {name: value for name, value in os.environ.items() if name != "AISANDBOX_REPO"} | ours
    played = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert played.returncode == 0, played.stdout[-6000:] + played.stderr[-2000:]
    return played.stdout


def dry_run(instance: Instance, settings: HostSettings, folder: Path) -> tuple[str, str]:
    """What a dry run prints, and the files and folders that it has changed all the same."""
    # The first sudo of a user leaves a file in the home directory.
    instance.run("sudo true && touch /tmp/before-dry-run")
    said = play(instance, settings, folder, "--check", "--diff")
    places = "/boot /etc /home /opt /root /srv /usr /var/lib/dpkg"
    find = f"sudo find {places} -xdev -newer /tmp/before-dry-run"
    return said, instance.run(find).stdout


def changed(output: str, instance: Instance) -> int:
    """How many tasks have changed something, by the recap."""
    recap = re.search(rf"{re.escape(instance.address)}\s+: ok=\d+\s+changed=(\d+) .*failed=0 ", output)
    assert recap, output[-6000:]
    return int(recap[1])


def tasks_that_changed(output: str) -> list[str]:
    """Names of the tasks, and handlers, that changed something, with their roles."""
    tasks = re.split(r"^(?:TASK|RUNNING HANDLER) \[([^\]]+)\] \**$", output, flags=re.MULTILINE)[1:]
    return [
        name for name, said in zip(tasks[::2], tasks[1::2], strict=True) if re.search(r"^changed:", said, re.MULTILINE)
    ]


def host_keys(instance: Instance) -> str:
    return instance.run("cat /etc/ssh/ssh_host_*_key.pub").stdout


def network_files(instance: Instance) -> str:
    return instance.run("cat /etc/resolv.conf; systemctl is-enabled systemd-networkd systemd-resolved").stdout


@pytest.fixture(scope="module")
def host(
    stock: tuple[Path, ...], package_sources: HostSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("existing-host")
    key = make_key(folder)

    def given(place: Place) -> Seed:
        seed.write_seed_dir(
            folder / "seed",
            instance_id="existing-host",
            hostname="existing",
            user_data=user_data(key.with_suffix(".pub").read_text()),
            network_config=place.network.network_config(place.address, place.nameservers),
        )
        return Seed({folder / "seed": SEED, **{Path(path): path for path in package_sources.paths}})

    with Hypervisor(folder / "machines") as hypervisor:
        instance = hypervisor.boot("existing-host", stock, given)
        instance.login = (OWNER, key)
        instance.wait_for_ssh()
        # It restarts SSH on the way.
        wait_for("the end of the boot", lambda: instance.run("cloud-init status --wait", check=False).returncode == 0)
        before, network = host_keys(instance), network_files(instance)
        said, touched = dry_run(instance, package_sources, folder)
        yield Host(instance, said, touched, play(instance, package_sources, folder), before, network)


def test_a_dry_run_before_says_what_it_would_change_and_changes_nothing(host: Host) -> None:
    assert host.touched == ""
    would, did = tasks_that_changed(host.dry_run), tasks_that_changed(host.output)
    assert changed(host.dry_run, host.instance) == len(would) > 30
    # No more than the run changes then, but for what a package does by itself; less where a command works on what is
    # not there yet.
    assert [name for name in would if name not in did] == ["gateway : Start nginx with the machine"]
    assert {"gateway : Install nginx", "appliance : Render the services of the catalogue"} <= set(would)
    assert "+++ after: " in host.dry_run


def test_it_serves_and_says_where(host: Host) -> None:
    flow.serves(host.instance, GUIDE, GUIDE)
    for port in (MANIFEST.ports["chat"].port, MANIFEST.ports["api"].port):
        assert f"http://{host.instance.address}:{port}" in host.output
    release = json.loads(host.instance.run(f"cat {MANIFEST.paths.opt}/release.json").stdout)
    assert release["flavour"] == "cpu"


def test_its_owner_comes_in_as_before_and_root_and_passwords_do_not(host: Host) -> None:
    for port in (22, PORT):
        *options, address = host.instance.ssh_command()
        command = [*options, "-p", str(port), address, "sudo", "-n", "id", "-un"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "root"
    settings = host.instance.run("sudo sshd -T").stdout
    assert {"permitrootlogin no", "passwordauthentication no"} <= set(settings.splitlines())


def test_the_firewall_is_up_and_leaves_the_owners_port_open(host: Host) -> None:
    rules = host.instance.run("sudo nft list chain inet aisandbox input").stdout
    opened = re.search(r"tcp dport \{ ([\d, ]+) \} accept", rules)
    assert opened and opened[1].split(", ") == ["22", str(PORT)]


def test_it_is_still_the_same_host(host: Host) -> None:
    assert host_keys(host.instance) == host.host_keys
    assert network_files(host.instance) == host.network
    assert host.instance.run("hostname").stdout.strip() == "existing"


def test_a_second_run_changes_nothing(host: Host, package_sources: HostSettings, tmp_path: Path) -> None:
    output = play(host.instance, package_sources, tmp_path)
    assert changed(output, host.instance) == 0, output[-6000:]


def test_a_dry_run_of_what_is_installed_has_nothing_to_change(
    host: Host, package_sources: HostSettings, tmp_path: Path
) -> None:
    said, touched = dry_run(host.instance, package_sources, tmp_path)
    assert (tasks_that_changed(said), changed(said, host.instance), touched) == ([], 0, "")


def test_what_changed_is_told_brought_and_restarted(host: Host, package_sources: HostSettings, tmp_path: Path) -> None:
    unit, site = "/etc/systemd/system/auxiliary.service", "/etc/nginx/aisandbox/api.conf"
    host.instance.run(f"echo '# older' | sudo tee --append {unit} {site}")
    renderings = [
        "gateway : Configure nginx and its sites, and render our pages",
        "appliance : Render the services of the catalogue",
    ]
    said, touched = dry_run(host.instance, package_sources, tmp_path)
    assert (tasks_that_changed(said), touched) == (renderings, "")
    assert said.count("-# older") == 2
    began = starts(host.instance)
    output = play(host.instance, package_sources, tmp_path)
    restarts = ["gateway : Restart nginx", "appliance : Restart what runs of the appliance"]
    assert tasks_that_changed(output) == [*renderings, *restarts]
    assert not host.instance.run(f"grep --files-with-matches '^# older' {unit} {site}", check=False).stdout
    assert {name for name, at in starts(host.instance).items() if at != began[name]} == began.keys()
    flow.serves(host.instance, GUIDE, GUIDE)


def starts(instance: Instance) -> dict[str, str]:
    """When services started."""
    names = ("nginx", "auxiliary", "vllm", "open-webui")
    show = "systemctl show --property=ExecMainStartTimestampMonotonic --value"
    return {name: instance.run(f"{show} {name}").stdout.strip() for name in names}


def test_it_is_an_appliance_after_a_reboot_too(host: Host) -> None:
    reboot(host.instance)
    flow.serves(host.instance, GUIDE, GUIDE)
    assert host_keys(host.instance) == host.host_keys
