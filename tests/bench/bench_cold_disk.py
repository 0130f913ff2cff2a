"""A first start on a disk that is filled when it is touched, with and without reading ahead, on a machine in QEMU.

    python -m tests.bench.bench_cold_disk [--delay-ms N] [--block-kib N] [--import-seconds N]

The machine has the files that vLLM and Open WebUI import, from the baked image, on a disk each of whose blocks comes
late when it is first touched. A program asks for them in the recorded order, one after the other, and waits in between
as long as importing computes; then it does so again, with everything in memory. An emulated processor would take many
times as long to import for real, and hide the disk. Results go to build/bench/cold_disk.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import container, overlay, qemu, tools
from aisandbox.builder.bake import bake
from aisandbox.builder.layers import Store
from aisandbox.builder.progress import Phases
from aisandbox.instance.run import read_ahead
from tests.support.lazy_disk import LazyDisk, serving

RESULTS = manifest.REPOSITORY / "build" / "bench" / "cold_disk.json"
TARGET = 2.0
"""A first boot takes at most so many times as long as one with everything in memory."""
LISTS = "opt/aisandbox/cache/read-ahead"
PYTHON = "usr/bin/python3.11"
LIMIT_S = 900
MEMORY_MIB = 4096
ON_MACHINE = """#!/usr/bin/python3.11 -IS
import ctypes, os, subprocess, sys, time
from pathlib import Path
try:
    lists = sorted(str(path) for path in Path("/LISTS").iterdir())
    words = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    if words["ahead"] == "1":
        subprocess.Popen(["/usr/bin/python3.11", "-IS", "/read_ahead.py", "replay", *lists])
    sys.path.insert(0, "/")
    from read_ahead import _pieces
    def start():
        began, pieces = time.monotonic(), list(_pieces(map(Path, lists)))
        for number, piece in enumerate(pieces):
            file = os.open(piece.path, os.O_RDONLY)
            os.pread(file, piece.length or os.fstat(file).st_size, piece.offset)
            os.close(file)
            if number % 32 == 0:
                time.sleep(32 * float(words["seconds"]) / len(pieces))
        return time.monotonic() - began
    print("TOOK", start(), start(), flush=True)
finally:
    ctypes.CDLL(None).reboot(0x4321FEDC)
"""


@dataclass(frozen=True)
class Start:
    """Seconds that a start took in the machine."""

    ahead: bool
    first: float
    warm: float
    """The second one, with everything in memory."""
    blocks: int
    """Blocks of the disk that were touched."""


def make_disk(root: Path, folder: Path) -> Path:
    """A disk with what the lists of the image name, and Python."""
    tree = folder / "tree"
    for name in ("proc", "sys", "dev", "run", "tmp", *(f"usr/{name}" for name in ("bin", "lib", "lib64", "sbin"))):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (tree / name).symlink_to(f"usr/{name}")
    shutil.copytree(root / LISTS, tree / LISTS)
    named = {piece.path for piece in read_ahead._pieces(sorted((tree / LISTS).iterdir()))}
    loader = os.path.realpath(root / "lib64/ld-linux-x86-64.so.2")
    wanted = [
        *named,
        f"/{PYTHON}",
        *(f"/{path.relative_to(root)}" for path in (root / "usr/lib/python3.11").rglob("*.*")),
    ]
    for path in sorted(set(wanted)):
        target = tree / path[1:]
        if (root / path[1:]).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path[1:], target)
    libraries = root / "usr/lib/x86_64-linux-gnu"
    for link in filter(Path.is_symlink, libraries.iterdir()):  # the names that programs ask for
        target = tree / "usr/lib/x86_64-linux-gnu" / link.readlink()
        if target.is_file():
            target.with_name(link.name).symlink_to(target.name)
    shutil.copyfile(loader, tree / "usr/lib64/ld-linux-x86-64.so.2")
    shutil.copyfile(read_ahead.__file__, tree / "read_ahead.py")
    (tree / "start").write_text(ON_MACHINE.replace("/LISTS", f"/{LISTS}"))
    for program in (tree / "start", tree / PYTHON, tree / "usr/lib64/ld-linux-x86-64.so.2"):
        program.chmod(0o755)
    disk = folder / "disk.img"
    size = sum(path.lstat().st_size // 4096 + 2 for path in tree.rglob("*")) * 4096 * 5 // 4 + (64 << 20)
    tools.run("mke2fs", "-q", "-t", "ext4", "-d", tree, disk, f"{size >> 10}k")
    shutil.rmtree(tree)
    return disk


def boot(root: Path, disk: Path, ahead: bool, seconds: float, block: int, delay: float) -> Start:
    """Start a machine on the disk, which is empty but for what it has touched."""
    kernel, initrd = (max((root / "boot").glob(pattern)) for pattern in ("vmlinuz-*", "initrd.img-*"))
    accelerator: qemu.Accelerator = "kvm" if qemu.kvm_works() else "tcg"
    lazy = LazyDisk(disk, block, delay)
    append = "root=/dev/vda ro console=ttyS0 quiet panic=-1 fsck.mode=skip init=/start "
    append += f"ahead={ahead:d} seconds={seconds}"
    with serving(lazy, disk.with_suffix(f".{ahead:d}")) as address:
        said = subprocess.run(
            [
                qemu.QEMU, "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35", "-smp", "2",
                "-accel", qemu.ACCELERATORS[accelerator], "-cpu", qemu.CPU_MODELS[accelerator], "-m", str(MEMORY_MIB),
                "-kernel", kernel, "-initrd", initrd, "-append", append, "-serial", "stdio",
                "-drive", f"file={address},format=raw,if=virtio,readonly=on",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=True,
        ).stdout  # fmt: skip
    found = re.search(r"TOOK ([\d.]+) ([\d.]+)", said)
    if not found:
        raise RuntimeError(f"the machine did not say how long it took:\n{said[-3000:]}")
    lazy.close()
    return Start(ahead, float(found[1]), float(found[2]), lazy.fetched)


def compare(root: Path, folder: Path, seconds: float, block: int, delay: float) -> list[Start]:
    """A start without and one with reading ahead."""
    disk = make_disk(root, folder)
    starts = []
    for ahead in (False, True):
        starts.append(boot(root, disk, ahead, seconds, block, delay))
        print(starts[-1], file=sys.stderr)
    return starts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--delay-ms", type=float, default=20, help="until a block is there")
    parser.add_argument("--block-kib", type=int, default=512, help="what is fetched at once")
    parser.add_argument("--import-seconds", type=float, default=12, help="computing time of a start")
    arguments = parser.parse_args()
    with Phases() as phases:
        image = bake("cpu", phases)
    container.enter_namespaces()
    with tempfile.TemporaryDirectory(prefix="bench-cold-disk-") as name:
        folder = Path(name)
        with overlay.read_only(Store().lower_directories(image), folder / "image") as root:
            wait, block = arguments.delay_ms / 1000, arguments.block_kib << 10
            starts = compare(root, folder, arguments.import_seconds, block, wait)
    factors = [start.first / start.warm for start in starts]
    for start, factor in zip(starts, factors, strict=True):
        how = "with reading ahead" if start.ahead else "without"
        print(f"{how:<20} first {start.first:6.1f} s, warm {start.warm:6.1f} s, {factor:5.2f} x, {start.blocks} blocks")
    print(f"target: {TARGET} x with reading ahead; reached: {factors[1]:.2f}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(start) for start in starts], indent=1) + "\n")
    return factors[1] > TARGET


if __name__ == "__main__":
    sys.exit(main())
