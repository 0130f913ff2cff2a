"""Boots a disk image under QEMU: with KVM where a probe shows that it is of use, else in software (TCG, slow)."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from aisandbox.builder import tools
from aisandbox.builder.errors import BuildError
from aisandbox.builder.waiting import wait_until

Accelerator = Literal["kvm", "tcg"]

CPU_MODELS: dict[Accelerator, str] = {"kvm": "host", "tcg": "max"}
ACCELERATORS: dict[Accelerator, str] = {"kvm": "kvm", "tcg": "tcg,thread=multi"}

QEMU = "qemu-system-x86_64"
FIRMWARE = Path("/usr/share/OVMF")
HOST = "127.0.0.1"
PROBE_SECONDS = 5.0
PROBE_STATUS = 99

# A boot sector that enters 64-bit mode, counts two hundred million down and reports through QEMU's debug exit device.
# A processor that runs it does so in a tenth of a second. A /dev/kvm without hardware behind it may pass a shorter
# test, yet interprets each instruction and would need minutes for this one, and hours for a kernel.
PROBE = bytes.fromhex(
    "fa 31c0 8ed8"  # cli; xor ax, ax; mov ds, ax
    "66c706 0010 03200000"  # page tables: [0x1000] = 0x2003
    "66c706 0020 03300000"  # [0x2000] = 0x3003
    "66c706 0030 83000000"  # [0x3000] = 0x83: the first 2 MiB
    "6631c0 66a30410 66a30420 66a30430"  # and the upper halves of the three entries = 0
    "0f0116 807c"  # lgdt [0x7c80]
    "b020 0f22e0"  # cr4 = PAE
    "b410 b000 0f22d8"  # cr3 = 0x1000
    "66b9 800000c0 0f32 80cc01 0f30"  # EFER |= long mode
    "0f20c0 660d 01000080 0f22c0"  # cr0 |= paging, protection
    "ea 5e7c 0800"  # jump to 64-bit code at 0x7c5e
    "b9 00c2eb0b ffc9 75fc"  # mov ecx, 200000000; dec ecx; jnz
    "b031 e6f4 f4"  # mov al, 0x31; out 0xf4, al: exit status 0x31 * 2 + 1; hlt
)
PROBE_TABLES = bytes.fromhex(
    "0000000000000000 00000000009a2000"  # 0x70: the null segment, the 64-bit code segment
    "0f00 707c0000"  # 0x80: their table's limit and place
)


def probe_sector() -> bytes:
    """The 512-byte boot sector of the probe."""
    return (PROBE.ljust(0x70, b"\0") + PROBE_TABLES).ljust(510, b"\0") + b"\x55\xaa"


@functools.cache
def kvm_works(seconds: float = PROBE_SECONDS) -> bool:
    """Whether KVM runs guests at the speed of the processor: boots a tiny one, for at most `seconds`.

    The answer is kept for the life of this process.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    return _probe("kvm", seconds)


def _probe(accelerator: Accelerator, seconds: float) -> bool:
    with tempfile.NamedTemporaryFile(prefix="aisandbox-probe-") as sector:
        sector.write(probe_sector())
        sector.flush()
        options = ["-accel", accelerator, "-cpu", CPU_MODELS[accelerator], "-m", "32", "-no-reboot"]
        options += ["-drive", f"file={_escaped(sector.name)},format=raw,snapshot=on"]
        options += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        try:
            result = subprocess.run(
                [tools.find(QEMU), "-nodefaults", "-display", "none", *options],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        return result.returncode == PROBE_STATUS


@dataclass(frozen=True)
class QemuMachine:
    """A virtual machine, known by the directory that holds its overlay, console log, sockets and process number.

    A machine that another process started is found again with `QemuMachine(state_dir)`.
    """

    state_dir: Path

    @property
    def console(self) -> Path:
        """What the machine wrote to its serial port since it was started."""
        return self.state_dir / "console.log"

    @property
    def facts(self) -> dict[str, Any]:
        """What it was started with (disk, accelerator, forwards); empty when it never was."""
        try:
            facts: dict[str, Any] = json.loads((self.state_dir / "qemu.json").read_text())
        except FileNotFoundError:
            return {}
        return facts

    def host_port(self, name: str) -> int:
        """The port on 127.0.0.1 that leads to the machine's port of that name."""
        return int(self.facts["forwards"][name][0])

    @property
    def pid(self) -> int | None:
        """The process number of its QEMU, None when it is not running."""
        try:
            pid = int((self.state_dir / "qemu.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        # The number may have gone to another process since.
        return pid if str(self.state_dir.resolve() / "qemu.pid").encode() in command else None

    def is_running(self) -> bool:
        """Whether its QEMU process lives."""
        return self.pid is not None

    def stop(self, seconds: float = 60.0) -> bool:
        """Press the power button, wait up to `seconds` for the machine to power off, then end it by force.

        Returns:
            Whether it was off already or went off in order.
        """
        pid = self.pid
        if pid is None:
            return True
        try:
            self.command("system_powerdown")
            orderly = wait_until(lambda: not self.is_running(), seconds)
        except OSError:  # QEMU does not answer, or has just gone
            orderly = not self.is_running()
        if not orderly and self.pid == pid:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not self.is_running(), 10.0)
        return orderly

    def command(self, name: str, **arguments: Any) -> Any:
        """Send one QMP command and return its result.

        Raises:
            OSError: QEMU is not there, does not answer, or refuses.
        """
        # A socket path may have 107 bytes; through the open directory it is short however deep the directory lies.
        folder = os.open(self.state_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10.0)
                connection.connect(f"/proc/self/fd/{folder}/qmp.sock")
                with connection.makefile("rw") as stream:
                    stream.readline()  # the greeting
                    _exchange(stream, {"execute": "qmp_capabilities"})
                    request = {"execute": name, "arguments": arguments}
                    return _exchange(stream, request)
        finally:
            os.close(folder)


def boot(
    disk: Path,
    seed_disk: Path | None,
    *,
    state_dir: Path,
    memory_mib: int = 2048,
    cpus: int = 2,
    accelerator: Accelerator = "kvm",
    forwards: Mapping[str, tuple[int, int]] | None = None,
    uefi: bool = False,
    disk_gib: int | None = None,
    fresh: bool = False,
) -> QemuMachine:
    """Start a machine on a disk image that stays as it is: changes go to an overlay in `state_dir`.

    Returns as soon as the virtual machine runs; the console log tells how far its system has come. An overlay of an
    earlier boot of the same image is used again, so that the machine goes on with its data.

    Args:
        disk: raw or qcow2 image.
        seed_disk: NoCloud seed, see `aisandbox.builder.seed`.
        accelerator: `kvm`, or `tcg`: works everywhere, 10 to 30 times slower.
        forwards: by name, a port on 127.0.0.1 (0: any free one) and the machine's port that it leads to.
        uefi: start through OVMF instead of the BIOS.
        disk_gib: size of the disk that the machine sees, GiB; by default the size of the image.
        fresh: throw an earlier overlay away.

    Raises:
        BuildError: a port is taken, the machine runs already, KVM is of no use, the overlay belongs to another image,
            or QEMU does not start.
    """
    state_dir, disk = state_dir.resolve(), disk.resolve()
    machine = QemuMachine(state_dir)
    if machine.is_running():
        raise BuildError(f"the machine in {state_dir} is running already", "stop it first")
    if accelerator == "kvm" and not kvm_works():
        raise BuildError("KVM is of no use here: a probe guest did not run in time", "boot with TCG (slow)")
    ports = {name: (_host_port(name, host), guest) for name, (host, guest) in (forwards or {}).items()}
    state_dir.mkdir(parents=True, exist_ok=True)
    status = disk.stat()
    facts = {
        "disk": str(disk),
        "stamp": [status.st_size, status.st_mtime_ns],
        "accelerator": accelerator,
        "forwards": ports,
    }
    overlay = _overlay(machine, facts, disk_gib, fresh)
    (state_dir / "qemu.json").write_text(json.dumps(facts, indent=2))
    options = ["-machine", "q35", "-accel", ACCELERATORS[accelerator], "-cpu", CPU_MODELS[accelerator]]
    options += ["-smp", str(cpus), "-m", str(memory_mib)]
    options += _firmware(state_dir, fresh) if uefi else []
    options += ["-drive", f"file={_escaped(overlay)},if=virtio,format=qcow2,discard=unmap"]
    if seed_disk:
        options += ["-drive", f"file={_escaped(seed_disk.resolve())},if=virtio,format=raw,readonly=on"]
    redirections = "".join(f",hostfwd=tcp:{HOST}:{host}-:{guest}" for host, guest in ports.values())
    options += ["-netdev", f"user,id=net{redirections}", "-device", "virtio-net-pci,netdev=net,romfile="]
    options += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
    options += ["-pidfile", str(state_dir / "qemu.pid")]
    # Relative on purpose: a socket path must be short (see `command`), and -serial cannot quote a comma.
    options += ["-serial", "file:console.log", "-qmp", "unix:qmp.sock,server=on,wait=off"]
    tools.run(QEMU, "-nodefaults", "-display", "none", "-daemonize", *options, cwd=state_dir)
    return machine


def _overlay(machine: QemuMachine, facts: dict[str, Any], disk_gib: int | None, fresh: bool) -> Path:
    """The overlay over the image, kept from an earlier boot or made anew."""
    overlay = machine.state_dir / "overlay.qcow2"
    if overlay.exists() and not fresh:
        if any(machine.facts.get(fact) != facts[fact] for fact in ("disk", "stamp")):
            raise BuildError(
                f"{overlay} holds a machine of another image or of an earlier build of it",
                f"boot it fresh (its data goes), or remove {machine.state_dir}",
            )
        return overlay
    overlay.unlink(missing_ok=True)
    disk = Path(facts["disk"])
    backing = "qcow2" if disk.suffix == ".qcow2" else "raw"
    size = [f"{disk_gib}G"] if disk_gib else []
    tools.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", backing, overlay, *size)
    return overlay


def _firmware(state_dir: Path, fresh: bool) -> list[str]:
    """UEFI from OVMF; its variables belong to the machine."""
    code, template, variables = FIRMWARE / "OVMF_CODE_4M.fd", FIRMWARE / "OVMF_VARS_4M.fd", state_dir / "uefi-vars.fd"
    if not code.exists():
        raise BuildError("the UEFI firmware OVMF is not installed", "apt-get install ovmf")
    if fresh or not variables.exists():
        shutil.copyfile(template, variables)
    return [
        "-drive", f"file={_escaped(code)},if=pflash,unit=0,format=raw,readonly=on",
        "-drive", f"file={_escaped(variables)},if=pflash,unit=1,format=raw",
    ]  # fmt: skip


def _host_port(name: str, port: int) -> int:
    """Check that a port of this host is free; 0 gives any free one.

    Raises:
        BuildError: it is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BuildError(
                f"port {port} on {HOST} (for {name}) cannot be used: {error.strerror}",
                f"choose another host port for {name}, or 0 for any free one (who has it: ss -ltnp sport = :{port})",
            ) from None
        return int(probe.getsockname()[1])


def _escaped(path: Path | str) -> str:
    """A path inside a QEMU option, where a comma would start the next setting."""
    return str(path).replace(",", ",,")


def _exchange(stream: TextIO, request: dict[str, Any]) -> Any:
    """One QMP request and its answer; events in between are passed over."""
    stream.write(json.dumps(request) + "\n")
    stream.flush()
    while line := stream.readline():
        answer = json.loads(line)
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise OSError(f"QEMU refuses {request['execute']}: {answer['error'].get('desc')}")
    raise ConnectionError("QEMU closed the connection")
