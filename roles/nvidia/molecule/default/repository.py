"""A stand-in for NVIDIA's package repository: flat, signed, its key beside it. Call: `repository.py FOLDER KEY-NAME`.

The packages have the names that the role installs, in the pinned version and in a newer branch, and hold next to
nothing. They depend on each other by "at least", as NVIDIA's do. `dkms` is among them, newer than Debian's, because the
real one brings a compiler.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import yaml

Package = tuple[str, str, str, dict[str, str]]
PINNED = yaml.safe_load((Path(__file__).parents[4] / "ansible" / "versions.yml").read_text())["nvidia_driver"]
OLDEST, NEWEST = "580.65.06", "615.71.09"
UNIT = "[Unit]\nDescription={}\n[Service]\nType=forking\nExecStart={}\n[Install]\nWantedBy=multi-user.target\n"
DKMS_UNIT = "[Unit]\nBefore=network-pre.target\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
LINK = "-> "
"""Begins the content of a symbolic link."""


def enabled(name: str, unit: str) -> dict[str, str]:
    """The files of a unit that starts with the machine, as its package's postinst sees to it."""
    path = f"lib/systemd/system/{name}.service"
    return {path: unit, f"etc/systemd/system/multi-user.target.wants/{name}.service": f"{LINK}/{path}"}


def driver(version: str) -> list[Package]:
    """The driver's packages of one version, each with its files."""
    least, release = f"(>= {OLDEST})", f"{version}-1"
    fabric = UNIT.format("NVIDIA fabric manager service", "/usr/bin/nvidia-fabricmanager-start.sh --mode start")
    persistence = UNIT.format("NVIDIA Persistence Daemon", "/usr/bin/nvidia-persistenced --user nvidia-persistenced")
    return [
        ("nvidia-driver-cuda", release, f"libcuda1 {least}, nvidia-persistenced {least}", {}),
        ("libcuda1", release, "", {"usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.1": ""}),
        ("nvidia-kernel-open-dkms", release, f"dkms, firmware-nvidia-gsp (= {release})",
         {f"usr/src/nvidia-{version}/dkms.conf": "PACKAGE_NAME=nvidia\n"}),
        ("firmware-nvidia-gsp", release, "", {f"lib/firmware/nvidia/{version}/gsp_ga10x.bin": ""}),
        ("nvidia-modprobe", release, "", {"usr/bin/nvidia-modprobe": "#!/bin/sh\n"}),
        ("nvidia-fabricmanager", release, "", enabled("nvidia-fabricmanager", fabric)),
        ("nvidia-persistenced", release, "", enabled("nvidia-persistenced", persistence)),
    ]  # fmt: skip


PACKAGES: list[Package] = [
    *driver(PINNED),
    *driver(NEWEST),
    ("nvlsm", "2025.10.12-1", "", {}),
    ("dkms", "99", "", enabled("dkms", DKMS_UNIT) | {
        "var/lib/dkms/mok.key": "key that every instance would share",
        "var/lib/dkms/mok.pub": "its public half",
    }),
]  # fmt: skip


def build(folder: Path, name: str, version: str, depends: str, files: dict[str, str]) -> str:
    """One package; returns its paragraph of the index."""
    root = folder / "root" / name / version
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Tests <tests@example.com>\n"
    control += f"Depends: {depends}\n" if depends else ""
    for path, content in {**files, "DEBIAN/control": f"{control}Description: stand-in\n"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if content.startswith(LINK):
            (root / path).symlink_to(content.removeprefix(LINK))
        else:
            (root / path).write_text(content)
    package = folder / f"{name}_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", root, package], check=True, stdout=subprocess.DEVNULL)
    size, digest = package.stat().st_size, hashlib.sha256(package.read_bytes()).hexdigest()
    return f"{control}Filename: ./{package.name}\nSize: {size}\nSHA256: {digest}\nDescription: stand-in\n"


def sign(folder: Path, key: Path) -> None:
    """Sign the index with a new key, whose public half goes to `key`."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "tests@example.com", "rsa3072", "sign"], check=True)
    subprocess.run([*gpg, "--armor", "--output", str(key), "--export"], check=True)
    subprocess.run([*gpg, "--clearsign", "--output", folder / "InRelease", folder / "Release"], check=True)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=True)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    index = "\n".join(build(folder, *package) for package in PACKAGES)
    (folder / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    (folder / "Release").write_text(f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(index)} Packages\n")
    sign(folder, folder / sys.argv[2])


if __name__ == "__main__":
    main()
