"""The image check opens disk images and archives, and refuses those that are broken or reach for other files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aisandbox.builder import checking, sizes
from aisandbox.builder.errors import BuildError
from aisandbox.check import Report, Settings
from aisandbox.manifest import REPOSITORY
from tests.support.clean_root import Root

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting images needs root")
SETTINGS = Settings(online=False)
MIB = 2**20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with a boot partition and a root file system that has one fault."""
    folder = tmp_path_factory.mktemp("disk")
    root = Root(folder / "root")
    root.write("root/.ssh/authorized_keys", "ssh-ed25519 AAAA builder\n")
    part, path = folder / "root.ext4", folder / "image.raw"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root.folder), str(part), "16M"], check=True)
    with path.open("wb") as disk:
        disk.truncate(20 * MIB)
        disk.seek(3 * MIB)
        disk.write(part.read_bytes())
    table = "label: gpt\nstart=2048, size=2048\nstart=6144, size=32768\n"
    subprocess.run(["sfdisk", "-q", str(path)], input=table.encode(), check=True)
    return path


def failing(report: Report) -> set[str]:
    return {result.check.id for result in report.results if result.findings}


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vhd"])
def test_a_disk_image_is_looked_into(disk: Path, kind: str, tmp_path: Path) -> None:
    path = disk
    if kind != "raw":
        path = tmp_path / f"image.{kind}"
        made = {"qcow2": "qcow2", "vhd": "vpc"}[kind]
        subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", made, str(disk), str(path)], check=True)
    assert failing(checking.check_path(path, SETTINGS)) == {"root-ssh-files"}
    devices = subprocess.check_output(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], text=True)
    assert str(tmp_path) not in devices and str(disk) not in devices
    assert str(path.parent) not in Path("/proc/mounts").read_text()
    assert not list(path.parent.glob("aisandbox-check-*"))


def test_an_archive_is_looked_into(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.write("usr/local/bin/door", b"\x7fELF\x02", 0o4755)
    path = tmp_path / "rootfs.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", str(path), "-C", str(root.folder), "."], check=True)
    assert failing(checking.check_path(path, SETTINGS)) == {"privileged-programs"}
    assert not list(tmp_path.glob("aisandbox-check-*"))


def test_an_image_that_reads_other_files_is_refused(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw", str(path)]
    subprocess.run(command, check=True)
    with pytest.raises(BuildError, match="reads other files"):
        checking.check_path(path, SETTINGS)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("image.raw", b"", "no partition table"),
        ("image.raw", b"text\n" * 1000, "no partition table"),
        ("image.qcow2", b"QFI\xfb" + b"\xff" * 600, "qemu-img failed"),
        ("rootfs.tar.zst", b"\x28\xb5\x2f\xfd\xff\xff", "tar failed"),
        ("image.iso", b"x", "no image that can be opened"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BuildError, match=told):
        checking.check_path(tmp_path / name, SETTINGS)


def test_a_file_system_that_is_broken_is_not_mounted(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    content = bytearray(disk.read_bytes())
    content[3 * MIB + 5 * 1024 : 3 * MIB + 600 * 1024] = os.urandom(595 * 1024)
    path.write_bytes(content)
    with pytest.raises(BuildError, match="e2fsck failed"):
        checking.check_path(path, SETTINGS)


def test_a_disk_that_is_cut_off_is_refused(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "image.raw"
    path.write_bytes(disk.read_bytes()[: 10 * MIB])
    with pytest.raises(BuildError, match=r"does not lie on the disk|no partition table|e2fsck failed"):
        checking.check_path(path, SETTINGS)


def command(*arguments: str, user: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    argv = [*user, sys.executable, "-m", "aisandbox.builder", *arguments]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_command_tells_by_its_exit_code_and_as_json(disk: Path) -> None:
    result = command("check", str(disk), "--offline", "--json")
    assert result.returncode == 1, result.stderr
    record = json.loads(result.stdout)
    (failed,) = [check for check in record["checks"] if check["id"] == "root-ssh-files"]
    assert failed["findings"] == [{"path": "/root/.ssh/authorized_keys", "text": ""}] and record["failed"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("/nowhere",), "/nowhere does not exist"),
        (("/tmp", "--target", "moon"), "there is no target moon"),
        (("nobody@127.0.0.1", "--port", "1"), "nobody@127.0.0.1 could not be checked"),
        (("--engine",), "only the flavour cuda has checks of the engine by itself"),
    ],
)
def test_the_command_explains_what_it_cannot_do(arguments: tuple[str, ...], told: str) -> None:
    result = command("check", *arguments, "--offline")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"error: {told}" in result.stderr and "  fix: " in result.stderr


def test_what_makes_it_large(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.package("big")
    status = (root.folder / "var/lib/dpkg/status").read_text()
    root.write("var/lib/dpkg/status", status.replace("Package: big\n", "Package: big\nInstalled-Size: 2048\n"))
    root.write("opt/aisandbox/envs/vllm/lib/python3.11/site-packages/torch/lib/x.so.1", b"x" * 3 * MIB)
    root.write("opt/aisandbox/envs/vllm/lib/python3.11/site-packages/numpy/tests/test_x.py", b"x" * MIB)
    report = sizes.report(root.folder, 5)
    assert "     2.0  big" in report
    assert "     3.0  vllm: torch" in report and "     4.0  /opt/aisandbox/envs" in report
    assert "     3.0  shared libraries" in report and "     1.0  tests of Python packages" in report
