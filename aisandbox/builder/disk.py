"""Turns a root file system directory into a bootable disk image, without loop devices or mounts.

The disk is a GPT with three partitions; the root comes last so that the first boot can grow it:

    1  BIOS boot, 1 MiB   GRUB's core image, started by the boot sector
    2  ESP, 64 MiB, FAT   Debian's signed shim and GRUB, which read the same menu as the BIOS way
    3  root, ext4         the directory, plus /etc/fstab and /boot/grub/grub.cfg

The root file system brings its own boot loaders and kernel. It needs the Debian packages named in `ROOTFS_PACKAGES`.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aisandbox.builder import tools
from aisandbox.builder.errors import BuildError

ROOT_LABEL = "aisandbox-root"
ROOTFS_PACKAGES = (
    "linux-image-cloud-amd64",  # or linux-image-amd64
    "initramfs-tools",
    "grub-pc-bin",
    "grub-common",
    "grub-efi-amd64-signed",
    "shim-signed",
    "cloud-guest-utils",  # growpart, with fdisk: grow the root partition on first boot
    "fdisk",
    "e2fsprogs",
)

# The serial console, with early messages on it, is where clouds look when a machine does not come up. No `rootdelay=`,
# which Azure suggests: Debian's initial RAM disk sleeps that long on every boot, and waits for a slow disk without it.
KERNEL_OPTIONS = f"root=LABEL={ROOT_LABEL} ro console=tty0 console=ttyS0,115200n8 earlyprintk=ttyS0,115200"

# How qemu-img writes each format. Several GB on two cores: zstd is five times as fast as the default zlib, no larger.
FORMATS: dict[str, tuple[str, ...]] = {
    "raw": (),
    "qcow2": ("-O", "qcow2", "-c", "-o", "compression_type=zstd"),
}

MIB = 2**20
SECTOR = 512
BIOS_START, ESP_START, ROOT_START = 1 * MIB, 2 * MIB, 66 * MIB
GPT_END = 1 * MIB  # the backup table
JOURNAL_MIB = 64
SLACK_MIB = 512

BIOS_TYPE = "21686148-6449-6E6F-744E-656564454649"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ROOT_TYPE = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"  # root, x86-64

GRUB_MODULES = [
    "biosdisk",
    "part_gpt",
    "ext2",
    "normal",
    "linux",
    "serial",
    "test",
    "echo",
    "ls",
    "cat",
    "configfile",
    "reboot",
    "halt",
]
GRUB_FILES = Path("usr/lib/grub/i386-pc")
EFI_FILES = {
    "BOOTX64.EFI": Path("usr/lib/shim/shimx64.efi.signed"),
    "mmx64.efi": Path("usr/lib/shim/mmx64.efi.signed"),
    "grubx64.efi": Path("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
}

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Identifiers:
    """The identifiers of one disk, all derived from one key: the same key gives the same ones."""

    key: str

    def get(self, what: str) -> str:
        """The UUID of the disk or of one of its parts."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"aisandbox-disk:{self.key}:{what}"))

    @property
    def fat_serial(self) -> str:
        """The ESP's volume number: eight upper-case hexadecimal digits."""
        return self.get("fat")[:8].upper()


@dataclass(frozen=True)
class Content:
    """What a root file system needs on ext4."""

    bytes: int
    entries: int

    @property
    def needed_mib(self) -> int:
        """The smallest root partition, in MiB: content, metadata, journal and room for the first boot."""
        return (self.bytes * 105 // 100 + self.entries * 512) // MIB + JOURNAL_MIB + SLACK_MIB

    def bytes_per_inode(self, size_mib: int) -> int:
        """A density that leaves half of the inodes free; many small files need more than ext4's one per 16 KiB."""
        return max(4096, min(16384, size_mib * MIB // (2 * self.entries + 1) // 1024 * 1024))


def build_disk(
    rootfs: Path,
    out_dir: Path,
    *,
    name: str,
    size_mib: int | None = None,
    formats: Sequence[str] = ("raw", "qcow2"),
    key: str | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write `<out_dir>/<name>.<format>` for each format, all or nothing.

    `rootfs` is only read. It may be an overlay mount, but nothing may be mounted inside it. Images are written to
    `.partial-<name>` and renamed at the end; what a killed run left there is removed by the next.

    Args:
        size_mib: size of the whole disk in MiB; by default the content plus half a GiB.
        formats: keys of `FORMATS`.
        key: what the UUIDs are derived from, such as a hash of the content; by default the name.
        progress: called with the step and its share done, 0 to 1.

    Returns:
        The images, in the order of `formats`.

    Raises:
        BuildError: a tool, a boot loader, the kernel or disk space is missing, or the size is too small.
    """
    rootfs, report, ids = rootfs.resolve(), progress or (lambda step, share: None), Identifiers(key or name)
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise BuildError(f"unknown disk format {', '.join(unknown)}", f"choose from {', '.join(FORMATS)}")
    for tool in ("sfdisk", "mke2fs", "debugfs", "mkfs.vfat", "mmd", "mcopy", "qemu-img"):
        tools.find(tool)
    _refuse_mounts_inside(rootfs)
    menu, core = grub_menu(*find_kernel(rootfs)), _grub_core(rootfs)
    content = measure(rootfs)
    root_mib = _root_size(content, size_mib)
    out_dir.mkdir(parents=True, exist_ok=True)
    partial = out_dir / f".partial-{name}"
    shutil.rmtree(partial, ignore_errors=True)
    _check_space(out_dir, content, formats)
    partial.mkdir()
    try:
        disk = partial / f"{name}.raw"
        _partition(disk, root_mib, ids)
        _make_root(disk, rootfs, root_mib, content, ids, report)
        _add_files(disk, {"/etc/fstab": fstab(ids), "/boot/grub/grub.cfg": menu}, directories=("/boot/efi",))
        report("boot loader", 0.0)
        _make_esp(disk, rootfs, ids)
        embed_grub(disk, (rootfs / GRUB_FILES / "boot.img").read_bytes(), core)
        report("boot loader", 1.0)
        made = [disk if kind == "raw" else _convert(disk, kind, report) for kind in formats]
        return [path.replace(out_dir / path.name) for path in made]
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def measure(rootfs: Path) -> Content:
    """Count what mke2fs will copy; a file with several names counts once."""
    total = entries = 0
    seen: set[tuple[int, int]] = set()
    folders = [str(rootfs)]
    while folders:
        for entry in os.scandir(folders.pop()):
            status = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            entries += 1
            total += -(-status.st_size // 4096) * 4096
    return Content(total, entries)


def find_kernel(rootfs: Path) -> tuple[str, str]:
    """The paths, inside the image, of the kernel and its initial RAM disk.

    Debian's symbolic links `/vmlinuz` and `/initrd.img` are preferred: they follow later kernel upgrades.

    Raises:
        BuildError: there is no kernel with an initial RAM disk.
    """
    for folder in (".", "boot"):
        links = rootfs / folder / "vmlinuz", rootfs / folder / "initrd.img"
        if all(link.is_symlink() and _exists(rootfs, link) for link in links):
            return str(Path("/", folder, "vmlinuz")), str(Path("/", folder, "initrd.img"))
    versions = [path.name.removeprefix("vmlinuz-") for path in (rootfs / "boot").glob("vmlinuz-*")]
    complete = [version for version in versions if (rootfs / "boot" / f"initrd.img-{version}").exists()]
    if not complete:
        raise BuildError(
            f"{rootfs}/boot has no kernel with an initial RAM disk",
            "install linux-image-cloud-amd64 and initramfs-tools in the root file system",
        )
    newest = max(complete, key=lambda text: [(part.isdigit(), part.zfill(9)) for part in re.findall(r"\d+|\D+", text)])
    return f"/boot/vmlinuz-{newest}", f"/boot/initrd.img-{newest}"


def grub_menu(kernel: str, initrd: str) -> str:
    """The content of /boot/grub/grub.cfg, read by the BIOS and the UEFI loader alike."""
    return f"""\
# Written when the disk image was built.
set timeout=1
set default=0
# The signed UEFI loader has no serial driver and needs none: the firmware mirrors its console.
if [ "$grub_platform" = pc ]; then
  if serial --unit=0 --speed=115200; then
    terminal_input console serial
    terminal_output console serial
  fi
fi
menuentry 'AI Sandbox' {{
  linux {kernel} {KERNEL_OPTIONS}
  initrd {initrd}
}}
"""


def fstab(ids: Identifiers) -> str:
    """The content of /etc/fstab."""
    esp = f"{ids.fat_serial[:4]}-{ids.fat_serial[4:]}"
    return f"""\
LABEL={ROOT_LABEL} / ext4 defaults,errors=remount-ro 0 1
UUID={esp} /boot/efi vfat umask=0077,nofail 0 0
"""


def embed_grub(disk: Path, boot: bytes, core: bytes) -> None:
    """Make a disk start through the BIOS: GRUB's core image in the BIOS boot partition, its boot sector in front.

    The first sector of each stage holds where the next one lies; GRUB's own installer, which would need a loop
    device, fills the same fields.

    Args:
        boot: `boot.img`, the 512-byte first stage.
        core: the output of `grub-mkimage -O i386-pc`.

    Raises:
        BuildError: the core image does not fit.
    """
    if len(core) > ESP_START - BIOS_START:
        raise BuildError(f"GRUB's core image has {len(core)} bytes; 1 MiB is the most", "use fewer modules")
    first = BIOS_START // SECTOR
    sectors = -(-len(core) // SECTOR)
    second_stage = bytearray(core.ljust(sectors * SECTOR, b"\0"))
    # The last list entry of the core's own first sector: start (64 bit), sectors (16 bit), load segment (kept).
    struct.pack_into("<QH", second_stage, 0x1F4, first + 1, sectors - 1)
    # The code area only: behind byte 440 lie the disk signature and the protective partition table.
    first_stage = bytearray(boot[:440])
    struct.pack_into("<Q", first_stage, 0x5C, first)
    first_stage[0x66:0x68] = b"\x90\x90"  # no jump: trust the drive number that the BIOS passes
    with disk.open("r+b") as file:
        file.write(first_stage)
        file.seek(BIOS_START)
        file.write(second_stage)


def _exists(rootfs: Path, link: Path) -> bool:
    """Whether a link leads to a file inside the root file system, where an absolute target starts at its top."""
    target = link.readlink()
    return (rootfs / target.relative_to("/") if target.is_absolute() else link.parent / target).exists()


def _refuse_mounts_inside(rootfs: Path) -> None:
    """mke2fs copies what it sees: a mounted /proc would end up in the image."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[4]))
        if rootfs in mount.parents:
            raise BuildError(f"{mount} is mounted inside the root file system", f"umount {mount}")


def _root_size(content: Content, size_mib: int | None) -> int:
    """The size of the root partition in MiB."""
    around = (ROOT_START + GPT_END) // MIB
    if size_mib is None:
        return content.needed_mib
    if size_mib - around < content.needed_mib:
        least = content.needed_mib + around
        raise BuildError(f"a disk of {size_mib} MiB is too small for the content", f"choose at least {least} MiB")
    return size_mib - around


def _check_space(out_dir: Path, content: Content, formats: Sequence[str]) -> None:
    """A compressed copy is counted with 60 % of the content, more than was ever seen."""
    needed = content.bytes * 105 // 100 + sum(content.bytes * 6 // 10 for kind in formats if kind != "raw") + 128 * MIB
    free = shutil.disk_usage(out_dir).free
    if free < needed:
        raise BuildError(
            f"{out_dir} has {free / 2**30:.1f} GiB free; the disk image needs {needed / 2**30:.1f} GiB",
            "free some space there or choose another folder",
        )


def _partition(disk: Path, root_mib: int, ids: Identifiers) -> None:
    with disk.open("wb") as file:
        file.truncate(ROOT_START + root_mib * MIB + GPT_END)
    lines = [
        "label: gpt",
        f"label-id: {ids.get('disk')}",
        _partition_line("bios", BIOS_TYPE, BIOS_START, ESP_START, ids),
        _partition_line("esp", ESP_TYPE, ESP_START, ROOT_START, ids),
        _partition_line("root", ROOT_TYPE, ROOT_START, ROOT_START + root_mib * MIB, ids),
    ]
    tools.run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, stdin="\n".join(lines) + "\n")


def _partition_line(name: str, kind: str, start: int, end: int, ids: Identifiers) -> str:
    where = f"start={start // SECTOR}, size={(end - start) // SECTOR}"
    return f'{where}, type={kind}, uuid={ids.get(f"partition-{name}")}, name="{name}"'


def _make_root(disk: Path, rootfs: Path, size_mib: int, content: Content, ids: Identifiers, report: Progress) -> None:
    """Write the file system straight into its partition: no second copy of several GB."""
    step = "root file system"
    extended = [
        f"offset={ROOT_START}",
        f"hash_seed={ids.get('hash')}",
        "root_owner=0:0",
        "nodiscard",
        "assume_storage_prezeroed=1",  # a new sparse file is: nothing to zero now, nor in the background after boot
    ]
    options = ["-L", ROOT_LABEL, "-U", ids.get("root"), "-m", "1", "-b", "4096", "-J", f"size={JOURNAL_MIB}"]
    options += ["-i", str(content.bytes_per_inode(size_mib)), "-E", ",".join(extended)]
    # Newer e2fsprogs switch this on; GRUB 2.06 cannot read it.
    options += ["-O", "^metadata_csum_seed"]

    def tick(_: bytes) -> None:
        report(step, min(disk.stat().st_blocks * 512 / (content.bytes + 1), 0.99))

    report(step, 0.0)
    blocks = str(size_mib * MIB // 4096)
    tools.run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", rootfs, disk, blocks, tick=tick)
    report(step, 1.0)


def _add_files(disk: Path, files: dict[str, str], directories: Sequence[str]) -> None:
    """Put files into the root file system of the image, over what the directory had there."""
    image = f"../{disk.name}?offset={ROOT_START}"
    stage = disk.parent / "stage"
    stage.mkdir()
    commands = [f"mkdir {folder}" for folder in directories]
    for number, (path, text) in enumerate(files.items()):
        staged = stage / str(number)
        staged.write_text(text)
        staged.chmod(0o644)
        folder, name = path.rsplit("/", 1)
        commands += [f"mkdir {folder}", f"rm {path}", f"cd {folder}", f"write {number} {name}", "cd /"]
    # debugfs always exits with 0, and complains about a folder that is there already: judge by the result.
    tools.run("debugfs", "-w", "-f", "-", image, cwd=stage, stdin="\n".join(commands) + "\n")
    for path, text in files.items():
        if tools.run("debugfs", "-R", f"cat {path}", image, cwd=stage) != text.encode():
            raise BuildError(f"{path} could not be written into the disk image", "check that its folder is no link")
    shutil.rmtree(stage)


def _make_esp(disk: Path, rootfs: Path, ids: Identifiers) -> None:
    # One sector per cluster, or 64 MiB have too few clusters for FAT32, the one type that all firmware reads.
    options = ["-F", "32", "-s", "1", "-n", "EFI", "-i", ids.fat_serial, "-h", str(ESP_START // SECTOR)]
    kib = str((ROOT_START - ESP_START) // 1024)
    tools.run("mkfs.vfat", *options, f"--offset={ESP_START // SECTOR}", disk, kib)
    esp = f"{disk}@@{ESP_START}"
    tools.run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    for name, source in EFI_FILES.items():
        if not (rootfs / source).exists():
            raise _missing_loader(source)
        tools.run("mcopy", "-i", esp, rootfs / source, f"::/EFI/BOOT/{name}")
    stub = disk.with_name("grub.cfg")
    root = ids.get("root")
    stub.write_text(f"search.fs_uuid {root} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
    tools.run("mcopy", "-i", esp, stub, "::/EFI/debian/grub.cfg")
    stub.unlink()


def _grub_core(rootfs: Path) -> bytes:
    """GRUB's core image, made by the root file system's own grub-mkimage so that code and modules fit together."""
    for needed in (GRUB_FILES / "boot.img", Path("usr/bin/grub-mkimage"), *EFI_FILES.values()):
        if not (rootfs / needed).exists():
            raise _missing_loader(needed)
    # A prefix without a disk name means the disk it was started from.
    command = ["grub-mkimage", "-O", "i386-pc", "-p", "(,gpt3)/boot/grub", *GRUB_MODULES]
    # It syncs its output, which works on a file and not on a pipe.
    with tempfile.TemporaryFile() as core:
        result = subprocess.run(["chroot", rootfs, *command], stdout=core, stderr=subprocess.PIPE, check=False)
        if result.returncode:
            raise BuildError(
                f"grub-mkimage failed in {rootfs}: {result.stderr.decode(errors='replace').strip()}",
                "run as root, on a root file system with the package grub-pc-bin",
            )
        core.seek(0)
        return core.read()


def _missing_loader(path: Path) -> BuildError:
    packages = "grub-pc-bin grub-common grub-efi-amd64-signed shim-signed"
    return BuildError(f"the root file system has no /{path}", f"install in it: apt-get install {packages}")


def _convert(disk: Path, kind: str, report: Progress) -> Path:
    target = disk.with_suffix(f".{kind}")

    def tick(output: bytes) -> None:
        shares = re.findall(rb"\(([\d.]+)/100%\)", output[-64:])
        report(kind, min(float(shares[-1]) / 100, 0.99) if shares else 0.0)

    report(kind, 0.0)
    tools.run("qemu-img", "convert", "-p", "-f", "raw", *FORMATS[kind], disk, target, tick=tick)
    report(kind, 1.0)
    return target
