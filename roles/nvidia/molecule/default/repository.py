"""A stand-in for NVIDIA's package repository: flat, signed, its key beside it. Call: `repository.py FOLDER KEY-NAME`.

The packages have the names that the role installs and the version of a current driver, and hold next to nothing.
`dkms` is among them, newer than Debian's, because the real one brings a compiler.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

DRIVER = "580.95.05-1"
DKMS_UNIT = "[Unit]\nBefore=network-pre.target\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
PACKAGES: dict[tuple[str, str, str], dict[str, str]] = {
    ("nvidia-driver-cuda", DRIVER, f"nvidia-kernel-open-dkms (= {DRIVER})"): {"usr/share/nvidia/driver": DRIVER},
    ("nvidia-kernel-open-dkms", DRIVER, "dkms"): {f"usr/src/nvidia-{DRIVER}/dkms.conf": "PACKAGE_NAME=nvidia\n"},
    ("dkms", "99", ""): {
        "lib/systemd/system/dkms.service": DKMS_UNIT,
        "etc/systemd/system/multi-user.target.wants/dkms.service": DKMS_UNIT,
        "var/lib/dkms/mok.key": "key that every instance would share",
        "var/lib/dkms/mok.pub": "its public half",
    },
}


def build(folder: Path, name: str, version: str, depends: str, files: dict[str, str]) -> str:
    """One package; returns its paragraph of the index."""
    root = folder / "root" / name
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Tests <tests@example.com>\n"
    control += f"Depends: {depends}\n" if depends else ""
    for path, content in {**files, "DEBIAN/control": f"{control}Description: stand-in\n"}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
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
    index = "\n".join(build(folder, *package, files) for package, files in PACKAGES.items())
    (folder / "Packages").write_text(index)
    digest = hashlib.sha256(index.encode()).hexdigest()
    (folder / "Release").write_text(f"Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {digest} {len(index)} Packages\n")
    sign(folder, folder / sys.argv[2])


if __name__ == "__main__":
    main()
