"""Opens images, folders and hosts for the image check (`aisandbox.check`).

An image is looked at in a mount namespace of its own, read-only and with nothing of it being run. Before the kernel
mounts its file system, `e2fsck` has found it whole: kernels trust what they mount more than they should.
"""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aisandbox import check, manifest
from aisandbox.builder import bake, overlay, tools
from aisandbox.builder.container import enter_namespaces, environment
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import TOP, Store, load
from aisandbox.check import Report, Settings
from aisandbox.check.__main__ import SETTINGS
from aisandbox.manifest import REPOSITORY

ARCHIVES = (".tar", ".tar.gz", ".tar.xz", ".tar.zst", ".tgz")
DISKS = {".raw": "raw", ".img": "raw", ".qcow2": "qcow2", ".vhd": "vpc"}
SOURCES = ("aisandbox/__init__.py", "aisandbox/check")
PRIVATE = "AISANDBOX_PRIVATE_NAMESPACE"
"""Set where the command has been started again in namespaces of its own."""
ON_THE_HOST = """
set -e; umask 077
[ "$(id -u)" = 0 ] && root= || root='sudo -n'
program=$($root mktemp /run/aisandbox-check.XXXXXX)
trap '$root rm -f "$program"' EXIT
$root tee "$program" >/dev/null
$root python3 "$program" --json
"""


def program(settings: Settings, subject: str) -> bytes:
    """The check as one file for `python3`, for hosts that have nothing of ours; the same input gives the same bytes."""
    output = io.BytesIO()
    packed = {"settings": settings.to_json(), "subject": subject}
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)

        for source in SOURCES:
            path = REPOSITORY / source
            for file in [path] if path.is_file() else sorted(path.glob("*.py")):
                add(str(file.relative_to(REPOSITORY)), file.read_bytes())
        add(f"aisandbox/check/{SETTINGS}", json.dumps(packed).encode())
        add("__main__.py", b"import sys\nfrom aisandbox.check.__main__ import main\nsys.exit(main())\n")
    return output.getvalue()


def check_host(host: str, settings: Settings, key: Path | None, port: int, known: Path | None) -> Report:
    """The report of a host that is reached by SSH.

    Raises:
        BuildError: it cannot be reached, the login may not become root, or the host has no Python.
    """
    options = ["StrictHostKeyChecking=accept-new", "BatchMode=yes", "ConnectTimeout=15", "LogLevel=ERROR"]
    argv = ["ssh", "-p", str(port), *(word for option in options for word in ("-o", option))]
    argv += ["-i", str(key)] if key else []
    argv += ["-o", f"UserKnownHostsFile={known}"] if known else []
    command = f"sh -c {shlex.quote(ON_THE_HOST)}"
    result = subprocess.run(
        [*argv, "--", host, command], input=program(settings, host), capture_output=True, check=False
    )
    try:
        return Report.from_json(json.loads(result.stdout))
    except ValueError as error:
        words = result.stderr.decode(errors="replace").strip().splitlines()
        raise BuildError(
            f"{host} could not be checked: {(words or ['it said nothing'])[-1]}",
            f"see whether this works: ssh -p {port} {host} sudo -n python3 --version",
        ) from error


def check_path(path: Path, settings: Settings) -> Report:
    """The report of a folder or an image file.

    Raises:
        BuildError: it is neither, is broken, or a tool is missing.
    """
    if path.is_dir():
        return check.run(path.resolve(), settings)
    if not path.is_file():
        raise BuildError(f"{path} does not exist", "name an image file, a folder, or USER@HOST")
    with tempfile.TemporaryDirectory(prefix="aisandbox-check-", dir=_scratch(path)) as name:
        work = Path(name)
        with _unpacked(path, work) if path.name.endswith(ARCHIVES) else _mounted(path, work) as root:
            return check.run(root, settings, subject=str(path))


def in_private_namespace(arguments: list[str]) -> int:
    """Run the builder's command again where what it mounts goes with it, however it ends."""
    command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.builder", *arguments]
    return subprocess.run(command, env={**environment(), PRIVATE: "1"}, check=False).returncode


@contextmanager
def baked(flavour: str, until: str = TOP) -> Iterator[Path]:
    """The baked image, or its layers up to one, as a folder. Call it inside `container.enter_namespaces()`.

    Raises:
        BuildError: it is not baked, or there is no such flavour.
    """
    if flavour not in bake.NEEDED_GIB:
        raise BuildError(f"there is no flavour {flavour}", f"one of {', '.join(bake.NEEDED_GIB)}")
    top = load(flavour)[until]
    if not all(Store().has(layer) for layer in top.stack):
        command = f"{sys.executable} -m aisandbox.builder bake --flavour {flavour} --until {until}"
        raise BuildError("the image is not baked", command)
    # No temporary folder that is emptied at its end: what is mounted must never be deleted.
    with overlay.read_only(Store().lower_directories(top), Path(tempfile.mkdtemp(prefix="aisandbox-check-"))) as root:
        yield root


def _scratch(path: Path) -> Path:
    """Where an image is unpacked: beside it, since temporary folders are often small."""
    return path.resolve().parent


@contextmanager
def _unpacked(path: Path, work: Path) -> Iterator[Path]:
    """An archive's files, in a folder that nobody else can enter: it may hold setuid programs."""
    root = work / "root"
    root.mkdir()
    tools.run("tar", "--extract", "--numeric-owner", "--same-owner", "--preserve-permissions", "--xattrs",
              "--xattrs-include=*", "--file", str(path.resolve()), "--directory", str(root))  # fmt: skip
    yield root


@contextmanager
def _mounted(path: Path, work: Path) -> Iterator[Path]:
    """The root file system of a disk image."""
    kind = next((kind for end, kind in DISKS.items() if path.name.endswith(end)), "")
    if not kind:
        raise BuildError(f"{path} is no image that can be opened", f"one of {', '.join((*DISKS, *ARCHIVES))}")
    disk = path.resolve()
    if kind != "raw":
        facts = json.loads(tools.run("qemu-img", "info", "--output=json", "-f", kind, disk))
        if {"backing-filename", "full-backing-filename"} & facts.keys() or _data_file(facts):
            raise BuildError(f"{path} reads other files of this host", "qemu-img convert it to an image of its own")
        raw = work / "disk.raw"
        tools.run("qemu-img", "convert", "-f", kind, "-O", "raw", disk, raw)
        disk = raw
    start, size = _root_partition(path, disk)
    device = tools.run("losetup", "--find", "--show", "--read-only", f"--offset={start}", f"--sizelimit={size}", disk)
    loop = device.decode().strip()
    root = work / "root"
    root.mkdir()
    try:
        tools.run("e2fsck", "-f", "-n", loop)
        tools.run("mount", "--types", "ext4", "--options", "ro,noload,nosuid,nodev,noexec", loop, root)
        try:
            yield root
        finally:
            tools.run("umount", root)
    finally:
        tools.run("losetup", "--detach", loop)


def _data_file(facts: dict[str, Any]) -> bool:
    return "data-file" in facts.get("format-specific", {}).get("data", {})


def _root_partition(path: Path, disk: Path) -> tuple[int, int]:
    """Where the root file system lies on the disk, and its length, in bytes: the largest partition."""
    try:
        table = json.loads(tools.run("sfdisk", "--json", disk))["partitiontable"]
        sector = int(table.get("sectorsize", 512))
        largest = max(table["partitions"], key=lambda partition: int(partition["size"]))
        start, size = int(largest["start"]) * sector, int(largest["size"]) * sector
    except (BuildError, ValueError, KeyError) as error:
        raise BuildError(f"{path} has no partition table that can be read", "is it a disk image?") from error
    if start < 0 or size <= 0 or start + size > disk.stat().st_size:
        raise BuildError(f"{path}: its largest partition does not lie on the disk", "is the image cut off?")
    return start, size


def check_engine(root: Path, settings: Settings) -> Report:
    """The report of the engine's files alone, in layers of which the image's upper ones may be missing."""
    chosen = {name: entry for name, entry in check.CHECKS.items() if name.startswith("engine-")}
    return check.run(root, settings.but(waivers=()), subject="the baked engine", checks=chosen)


def check_layer(lower: str, folder: Path) -> Report:
    """The report of layers that were baked just now, without asking anybody else: bakes must not depend on the day.

    Call it inside `container.enter_namespaces()`.
    """
    settings = Settings.of(manifest.load(), online=False)
    with overlay.read_only(lower, folder) as root:
        return check.run(root, settings, subject="the baked image")


def summary(report: Report) -> str:
    """What failed, in one line."""
    failed = [result for result in report.results if result.status == "error"]
    parts = [f"{result.check.id} ({check.shown(result.findings[0].path)})" for result in failed]
    return f"the image check failed: {', '.join(parts)}"
