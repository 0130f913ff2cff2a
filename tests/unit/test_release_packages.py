"""Which Debian packages a release asks of the instances that it is for."""

from __future__ import annotations

from pathlib import Path

from aisandbox.builder import release


def installed(root: Path, *names: str) -> Path:
    """A root file system in which dpkg knows these packages."""
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text("\n".join(f"Package: {name}\nStatus: hold ok installed\nVersion: 1\n" for name in names))
    return root


def test_kernel_and_driver_are_the_machines_own_business(tmp_path: Path) -> None:
    system = installed(tmp_path / "system", "dpkg")
    driver = ("nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-fabricmanager", "nvlsm", "infiniband-diags")
    root = installed(tmp_path / "root", "dpkg", "nginx-light", "linux-image-amd64", "linux-headers-amd64", *driver)
    assert release.packages(root, system, {}) == {"nginx-light": ""}
