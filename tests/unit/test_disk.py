"""The disk image, read back with the tools that other people use on disks."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aisandbox.builder import disk, tools
from aisandbox.builder.errors import BuildError

BOOT = bytes(range(256)) * 2
CORE = b"\xee" * 0x1F4 + struct.pack("<QHH", 0, 0, 0x820) + b"core" * 200


@pytest.fixture
def rootfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root file system in small, with a made-up kernel and boot loaders."""
    root = tmp_path / "rootfs"
    files = {
        "etc/fstab": b"# to be replaced\n",
        "etc/hostname": b"sandbox\n",
        "boot/vmlinuz-6.1": b"kernel",
        "boot/initrd.img-6.1": b"initrd",
        "usr/bin/tool": b"x" * 5000,
        "usr/bin/grub-mkimage": b"",
        "usr/lib/grub/i386-pc/boot.img": BOOT,
    } | {str(source): name.encode() for name, source in disk.EFI_FILES.items()}
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "vmlinuz").symlink_to("boot/vmlinuz-6.1")
    (root / "initrd.img").symlink_to("/boot/initrd.img-6.1")
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "usr/bin/same-tool").hardlink_to(root / "usr/bin/tool")
    monkeypatch.setattr(disk, "_grub_core", lambda rootfs: CORE)
    return root


def output(*command: str | Path) -> str:
    name, *arguments = command
    return subprocess.run([tools.find(str(name)), *arguments], capture_output=True, check=True, text=True).stdout


def partitions(image: Path) -> dict[str, Any]:
    table = json.loads(output("sfdisk", "--json", image))["partitiontable"]
    assert table["label"] == "gpt"
    return {part["name"]: part for part in table["partitions"]}


def test_disk_is_complete(rootfs: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, float]] = []
    before = sorted(path.lstat().st_mtime_ns for path in rootfs.rglob("*"))
    out = tmp_path / "out"
    raw, qcow2 = disk.build_disk(rootfs, out, name="tiny", progress=lambda *step: steps.append(step))
    assert (raw, qcow2) == (out / "tiny.raw", out / "tiny.qcow2")
    assert sorted(out.iterdir()) == [qcow2, raw]
    assert raw.stat().st_blocks * 512 < 100 * disk.MIB  # sparse
    assert sorted(path.lstat().st_mtime_ns for path in rootfs.rglob("*")) == before
    assert steps[-1] == ("qcow2", 1.0)
    assert all(0 <= share <= 1 for _, share in steps)

    table = partitions(raw)
    assert {name: part["type"] for name, part in table.items()} == {
        "bios": disk.BIOS_TYPE,
        "esp": disk.ESP_TYPE,
        "root": disk.ROOT_TYPE,
    }
    assert max(table.values(), key=lambda part: int(part["start"]))["name"] == "root"

    root = table["root"]["start"] * 512
    image = f"{raw}?offset={root}"
    assert output("blkid", "-p", "-O", str(root), "-s", "LABEL", "-o", "value", raw).strip() == "aisandbox-root"
    subprocess.run([tools.find("e2fsck"), "-fn", image], capture_output=True, check=True)
    assert output("debugfs", "-R", "cat /etc/hostname", image) == "sandbox\n"
    for path in ("tool", "same-tool"):
        assert "Mode:  04755" in output("debugfs", "-R", f"stat /usr/bin/{path}", image)
        assert "Links: 2" in output("debugfs", "-R", f"stat /usr/bin/{path}", image)
    menu = output("debugfs", "-R", "cat /boot/grub/grub.cfg", image)
    assert "linux /vmlinuz root=LABEL=aisandbox-root ro " in menu
    assert "initrd /initrd.img\n" in menu

    esp = table["esp"]["start"] * 512
    serial = output("blkid", "-p", "-O", str(esp), "-s", "UUID", "-o", "value", raw).strip()
    fstab = output("debugfs", "-R", "cat /etc/fstab", image)
    assert "LABEL=aisandbox-root / ext4" in fstab
    assert f"UUID={serial} /boot/efi vfat" in fstab
    for name in disk.EFI_FILES:
        assert output("mtype", "-i", f"{raw}@@{esp}", f"::/EFI/BOOT/{name}") == name
    uuid = output("blkid", "-p", "-O", str(root), "-s", "UUID", "-o", "value", raw).strip()
    assert f"search.fs_uuid {uuid} root" in output("mtype", "-i", f"{raw}@@{esp}", "::/EFI/debian/grub.cfg")
    subprocess.run([tools.find("qemu-img"), "compare", "-q", raw, qcow2], check=True)


def test_boot_sectors_point_at_each_other(rootfs: Path, tmp_path: Path) -> None:
    (raw,) = disk.build_disk(rootfs, tmp_path, name="tiny", formats=["raw"])
    with raw.open("rb") as file:
        first = file.read(512)
        file.seek(partitions(raw)["bios"]["start"] * 512)
        second = file.read(len(CORE))
    assert struct.unpack_from("<Q", first, 0x5C) == (2048,)
    assert first[:0x5C] == BOOT[:0x5C]
    assert first[0x66:0x68] == b"\x90\x90"
    assert first[0x1C2] == 0xEE  # the protective partition is still there
    assert struct.unpack_from("<QHH", second, 0x1F4) == (2049, 2, 0x820)
    assert second[512:] == CORE[512:]


def test_core_image_must_fit(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="1 MiB"):
        disk.embed_grub(tmp_path / "unused", BOOT, b"x" * (disk.MIB + 1))


def test_same_key_gives_the_same_identifiers(rootfs: Path, tmp_path: Path) -> None:
    def identifiers(name: str, key: str | None) -> list[str]:
        (raw,) = disk.build_disk(rootfs, tmp_path, name=name, formats=["raw"], key=key)
        return [part["uuid"] for part in partitions(raw).values()]

    assert identifiers("one", "k") == identifiers("two", "k") != identifiers("three", None)


def test_size_is_the_size_of_the_disk(rootfs: Path, tmp_path: Path) -> None:
    (raw,) = disk.build_disk(rootfs, tmp_path / "out", name="tiny", formats=["raw"], size_mib=3000)
    assert raw.stat().st_size == 3000 * disk.MIB
    with pytest.raises(BuildError, match="too small") as caught:
        disk.build_disk(rootfs, tmp_path / "small", name="tiny", size_mib=100)
    assert "choose at least" in caught.value.fix
    assert not (tmp_path / "small").exists()


def test_interrupted_build_leaves_nothing(rootfs: Path, tmp_path: Path) -> None:
    def interrupt(step: str, share: float) -> None:
        if step == "boot loader":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    # What a build that was killed outright left behind.
    (out / ".partial-tiny").mkdir(parents=True)
    (out / ".partial-tiny" / "tiny.raw").touch()
    with pytest.raises(KeyboardInterrupt):
        disk.build_disk(rootfs, out, name="tiny", progress=interrupt)
    assert list(out.iterdir()) == []


def test_full_disk_is_told_before_any_work(rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(BuildError, match="GiB free; the disk image needs"):
        disk.build_disk(rootfs, tmp_path / "out", name="tiny")


def test_kernel_without_links_is_the_newest_complete_one(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.mkdir()
    with pytest.raises(BuildError, match="no kernel") as caught:
        disk.find_kernel(tmp_path)
    assert "linux-image" in caught.value.fix
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "5.10.0-30-amd64"):
        (boot / f"vmlinuz-{version}").touch()
        (boot / f"initrd.img-{version}").touch()
    (boot / "vmlinuz-6.12.0-1-amd64").touch()
    (tmp_path / "vmlinuz").symlink_to("boot/gone")
    assert disk.find_kernel(tmp_path) == ("/boot/vmlinuz-6.1.0-10-amd64", "/boot/initrd.img-6.1.0-10-amd64")


def test_missing_parts_are_named(rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BuildError, match="unknown disk format floppy"):
        disk.build_disk(rootfs, tmp_path, name="tiny", formats=["floppy"])
    monkeypatch.undo()  # the real _grub_core
    (rootfs / "usr/lib/shim/mmx64.efi.signed").unlink()
    with pytest.raises(BuildError, match="no /usr/lib/shim/mmx64") as caught:
        disk.build_disk(rootfs, tmp_path, name="tiny")
    assert "shim-signed" in caught.value.fix
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(BuildError, match="sfdisk is not installed") as caught:
        disk.build_disk(rootfs, tmp_path, name="tiny")
    assert caught.value.fix == "apt-get install fdisk"


def test_mounts_inside_the_root_file_system_are_refused() -> None:
    with pytest.raises(BuildError, match="mounted inside"):
        disk.build_disk(Path("/"), Path("/nonexistent"), name="tiny")


def test_many_small_files_get_enough_inodes() -> None:
    assert disk.Content(2**30, 1000).bytes_per_inode(2000) == 16384
    content = disk.Content(2**30, 200_000)
    assert content.needed_mib * disk.MIB // content.bytes_per_inode(content.needed_mib) >= 2 * content.entries


def test_failing_tool_tells_its_last_words() -> None:
    with pytest.raises(BuildError, match="No such file") as caught:
        tools.run("mke2fs", "-n", "/nonexistent/image", "1M")
    assert "mke2fs -n /nonexistent/image" in caught.value.fix
    assert tools.run("mke2fs", "-V", cwd=Path(os.sep)) == b""
