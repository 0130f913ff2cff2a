"""The disk image on an emulated machine: boot loader, kernel and first boot, as far as an emulator has patience for."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from aisandbox.builder import virtual
from aisandbox.builder.layers import Layer
from aisandbox.builder.machine import make_key
from aisandbox.builder.progress import Phases
from aisandbox.builder.qemu import QemuMachine
from tests.support.machines import MANIFEST, wait_for

BOOT_SECONDS = 900
pytestmark = pytest.mark.timeout(2400)


def boot(name: str, image: Layer, *, uefi: bool) -> Iterator[QemuMachine]:
    stale = QemuMachine(virtual.state_directory(name))
    stale.stop(1)
    with Phases() as phases:
        machine = virtual.boot(name, image, None, "tcg", phases, uefi=uefi)
    try:
        yield machine
    finally:
        if machine.is_running():
            print(console(machine)[-4000:])
        machine.stop(1)
        shutil.rmtree(machine.state_dir)


@pytest.fixture(scope="module")
def bios(image: Layer) -> Iterator[QemuMachine]:
    yield from boot("test-bios", image, uefi=False)


@pytest.fixture
def uefi(image: Layer) -> Iterator[QemuMachine]:
    yield from boot("test-uefi", image, uefi=True)


def console(machine: QemuMachine) -> str:
    return machine.console.read_text(errors="replace") if machine.console.exists() else ""


def run(machine: QemuMachine, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the machine, whose every step takes long."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60"]
    argv = ["ssh", "-i", str(make_key(machine.state_dir)), "-p", str(machine.host_port("ssh"))]
    argv += [word for option in options for word in ("-o", option)]
    argv += [f"{MANIFEST.os.default_user}@127.0.0.1", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)


def output(machine: QemuMachine, command: str) -> str:
    result = run(machine, command)
    assert result.returncode == 0, f"{command}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout.strip()


def test_bios_boots_to_ssh(bios: QemuMachine) -> None:
    wait_for("SSH", lambda: not bios.is_running() or run(bios, "true").returncode == 0, BOOT_SECONDS)
    assert bios.is_running()
    assert "Linux version" in console(bios)


def test_cloud_init_is_done(bios: QemuMachine) -> None:
    state = json.loads(output(bios, "cloud-init status --wait --format=json"))
    assert (state["status"], state["errors"]) == ("done", [])


def test_the_choice_is_applied(bios: QemuMachine) -> None:
    wait_for(
        "configure",
        lambda: "exited" in output(bios, "systemctl show --property=SubState aisandbox-configure"),
        BOOT_SECONDS,
    )
    assert output(bios, "systemctl show --value --property=Result aisandbox-configure") == "success"
    assert (
        json.loads(output(bios, "sudo cat /run/aisandbox/resolved.json"))["serving"]["model"]
        == MANIFEST.embedded_model.id
    )
    assert output(bios, "systemctl --failed --plain --no-legend") == ""


def test_the_root_file_system_has_grown(bios: QemuMachine) -> None:
    assert int(output(bios, "df --output=size --block-size=1G / | tail -1")) >= virtual.DISK_GIB - 2


def test_the_gateway_answers(bios: QemuMachine) -> None:
    """Progress page or chat page, model or its absence: whatever it says, it says it as it should."""
    chat = httpx.get(f"http://127.0.0.1:{bios.host_port('chat')}/", headers={"Accept": "text/html"}, timeout=60)
    assert chat.status_code in (200, 503)
    assert MANIFEST.product.name in chat.text or "Open WebUI" in chat.text
    models = httpx.get(f"http://127.0.0.1:{bios.host_port('api')}/v1/models", timeout=60)
    assert models.status_code in (200, 503)
    assert models.json().keys() & {"data", "error"}


def test_it_powers_off_in_order(bios: QemuMachine) -> None:
    assert bios.stop(600)


def test_uefi_boots_to_the_login(uefi: QemuMachine) -> None:
    wait_for("the login", lambda: not uefi.is_running() or "login:" in console(uefi), BOOT_SECONDS)
    assert uefi.is_running()
    assert "EFI v" in console(uefi) or "efi:" in console(uefi)
