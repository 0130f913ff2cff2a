"""The services and what first boot needs: units that systemd accepts, our command, vLLM's baked table."""

from __future__ import annotations

import json

import pytest
import yaml
from testinfra.host import Host

from aisandbox import manifest
from aisandbox.instance.run.rendering import RENDERED
from aisandbox.manifest import REPOSITORY
from tests.roles import environments

MANIFEST = manifest.load()
OPT = MANIFEST.paths.opt
DEFAULTS = yaml.safe_load((REPOSITORY / "roles" / "appliance" / "defaults" / "main.yml").read_text())
SERVICES = yaml.safe_load((REPOSITORY / "ansible" / "group_vars" / "all" / "services.yml").read_text())["services"]
ENABLED = [*DEFAULTS["appliance_enabled"], *(f"{name}.service" for name in SERVICES)]


def test_systemd_accepts_every_unit(host: Host) -> None:
    units = " ".join({*DEFAULTS["appliance_units"], *ENABLED})
    checked = host.run(f"systemd-analyze verify --man=no {units}")
    assert checked.succeeded, checked.stderr
    assert checked.stderr == ""


def test_there_is_no_ordering_cycle_up_to_the_login(host: Host) -> None:
    checked = host.run("systemd-analyze verify --man=no multi-user.target")
    assert "cycle" not in checked.stderr


@pytest.mark.parametrize("unit", ENABLED)
def test_they_start_with_the_machine(host: Host, unit: str) -> None:
    assert host.service(unit.removesuffix(".service")).is_enabled


@pytest.mark.parametrize("name", SERVICES)
def test_services_run_unprivileged(host: Host, name: str) -> None:
    unit = host.file(f"/etc/systemd/system/{name}.service").content_string.splitlines()
    assert f"User={SERVICES[name]['user']}" in unit
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(unit)
    (bounding,) = (line for line in unit if line.startswith("CapabilityBoundingSet="))
    (start,) = (line for line in unit if line.startswith("ExecStart="))
    # Only to become the two users that it is (sandbox_api/privileges.py), before anything of ours runs.
    two = "real_user" in SERVICES[name]
    assert bounding == f"CapabilityBoundingSet={'CAP_SETUID CAP_SETGID' if two else ''}"
    assert start.startswith("ExecStart=!/usr/bin/setpriv --ruid " if two else "ExecStart=/opt/")


def test_the_command_runs(host: Host) -> None:
    assert host.file("/usr/local/bin/aisandbox").mode == 0o755
    assert "configure" in host.check_output("aisandbox --help")


def test_its_environment_is_the_locked_one(host: Host) -> None:
    environments.check(host, "appliance", "appliance", ["typer", "pydantic"])


def test_the_release_is_recorded(host: Host) -> None:
    release = json.loads(host.file(f"{OPT}/release.json").content_string)
    assert release == {"version": MANIFEST.product.version, "flavour": "cpu"}


def test_places_can_be_laid_out(host: Host) -> None:
    laid_out = host.run("systemd-tmpfiles --create --dry-run /etc/tmpfiles.d/aisandbox.conf 2>&1 || true")
    assert "Unknown user" not in laid_out.stdout
    assert host.run("systemd-tmpfiles --create /etc/tmpfiles.d/aisandbox.conf").succeeded
    assert host.file("/etc/aisandbox/secrets").mode == 0o700
    assert host.file("/var/lib/aisandbox/models").user == "vllm"


def test_vllms_table_of_models_is_baked_and_readable(host: Host) -> None:
    table = f"{OPT}/cache/vllm/modelinfos"
    assert len(host.file(table).listdir()) > 100
    assert host.check_output(f"find {table} -type f \\! -perm -444") == ""


def test_what_vllm_knows_is_baked_and_readable(host: Host) -> None:
    table = host.file(f"{OPT}/cache/vllm/tables.json")
    assert table.mode == 0o644
    assert "LlamaForCausalLM" in json.loads(table.content_string)["architectures"]


def test_what_a_first_start_reads_is_recorded(host: Host) -> None:
    for name, part in (("vllm", "/vllm/"), ("open-webui", "/open_webui/"), ("nginx", "/usr/sbin/nginx")):
        recorded = host.file(f"{OPT}/cache/read-ahead/{name}")
        assert (recorded.mode, recorded.user) == (0o644, "root")
        assert part in recorded.content_string
    unit = host.file("/etc/systemd/system/aisandbox-read-ahead.service").content_string.replace("\\\n", "")
    (command,) = (line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart="))
    assert "asked for" in host.check_output(command)


def test_what_first_boot_renders_is_there(host: Host) -> None:
    installed = host.check_output(f"cd {OPT}/templates && find . -type f").splitlines()
    needed = {*(entry.template for entry in RENDERED), "motd.txt.j2", "nginx/https/http.conf.j2"}
    assert {f"./{template}" for template in needed} <= set(installed)
    assert not any(name.startswith(("./listing/", "./systemd/")) for name in installed)


def test_everything_belongs_to_root(host: Host) -> None:
    assert host.check_output(f"find {OPT} \\! -user root -o -perm /022 \\! -type l") == ""


def test_nothing_is_there_for_gpus(host: Host) -> None:
    for unit in DEFAULTS["appliance_gpu_units"]:
        assert not host.file(f"/etc/systemd/system/{unit}").exists
