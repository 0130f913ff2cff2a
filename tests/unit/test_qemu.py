"""QEMU machines: real ones, on a disk whose whole system is one boot sector."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aisandbox.builder import qemu
from aisandbox.builder.errors import BuildError

# mov dx, 0x3f8; mov al, 'A'; out dx, al; hlt; jmp back to hlt
HELLO = bytes.fromhex("baf803 b041 ee f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "system.raw"
    path.write_bytes(HELLO.ljust(2**20, b"\0"))
    return path


@pytest.fixture
def machine(image: Path, tmp_path: Path) -> Iterator[qemu.QemuMachine]:
    """A running machine, in a directory whose name is long and has a comma."""
    state = tmp_path / ("deep, " + "x" * 100)
    found = qemu.boot(image, None, state_dir=state, memory_mib=64, accelerator="tcg", forwards={"ssh": (0, 22)})
    yield found
    found.stop(0)


def restart(machine: qemu.QemuMachine, image: Path, *, fresh: bool = False) -> qemu.QemuMachine:
    return qemu.boot(image, None, state_dir=machine.state_dir, memory_mib=64, accelerator="tcg", fresh=fresh)


def wait_for_console(machine: qemu.QemuMachine) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not machine.console.read_text():
        time.sleep(0.05)
    return machine.console.read_text()


def test_probe_guest_runs() -> None:
    assert len(qemu.probe_sector()) == 512
    assert qemu._probe("tcg", 60)


def test_probe_gives_up_in_time() -> None:
    start = time.monotonic()
    assert qemu._probe("tcg", 0.01) is False
    assert time.monotonic() - start < 5


def test_kvm_probe_answers_in_time_and_once() -> None:
    qemu.kvm_works.cache_clear()
    start = time.monotonic()
    answer = qemu.kvm_works()
    assert isinstance(answer, bool)
    assert time.monotonic() - start < qemu.PROBE_SECONDS + 3
    start = time.monotonic()
    assert qemu.kvm_works() is answer
    assert time.monotonic() - start < 0.1


def test_kvm_of_no_use_is_told(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "kvm_works", lambda: False)
    with pytest.raises(BuildError, match="KVM is of no use") as caught:
        qemu.boot(image, None, state_dir=tmp_path / "state", accelerator="kvm")
    assert "TCG" in caught.value.fix


def test_no_kvm_device_needs_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    qemu.kvm_works.cache_clear()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert qemu.kvm_works() is False
    qemu.kvm_works.cache_clear()


def test_machine_runs_and_stops(machine: qemu.QemuMachine, image: Path) -> None:
    assert machine.is_running()
    assert qemu.QemuMachine(machine.state_dir).pid == machine.pid
    assert wait_for_console(machine) == "A"
    assert machine.command("query-status")["running"] is True
    with pytest.raises(OSError, match="refuses no-such-command"):
        machine.command("no-such-command")
    with socket.create_connection(("127.0.0.1", machine.host_port("ssh")), timeout=5):
        pass
    with pytest.raises(BuildError, match="running already"):
        restart(machine, image)
    # Nothing in there heeds the power button.
    assert machine.stop(0.5) is False
    assert not machine.is_running()
    assert machine.stop() is True
    assert image.read_bytes()[:512] == HELLO


def test_overlay_belongs_to_one_image(machine: qemu.QemuMachine, image: Path) -> None:
    machine.stop(0)
    overlay = machine.state_dir / "overlay.qcow2"
    inode = overlay.stat().st_ino
    restart(machine, image).stop(0)
    assert overlay.stat().st_ino == inode
    os.utime(image, (0, 0))
    with pytest.raises(BuildError, match="another image"):
        restart(machine, image)
    restart(machine, image, fresh=True).stop(0)


def test_taken_port_is_named(image: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BuildError, match=f"port {port} on 127.0.0.1") as caught:
            qemu.boot(image, None, state_dir=tmp_path / "s", accelerator="tcg", forwards={"chat": (port, 3000)})
    assert "choose another host port for chat" in caught.value.fix
    assert not (tmp_path / "s").exists()


def test_number_of_another_process_is_not_ours(tmp_path: Path) -> None:
    machine = qemu.QemuMachine(tmp_path)
    assert machine.facts == {}
    assert not machine.is_running()
    (tmp_path / "qemu.pid").write_text(f"{os.getpid()}\n")
    assert not machine.is_running()
    assert machine.stop() is True
