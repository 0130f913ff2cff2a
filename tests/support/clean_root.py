"""A small root file system in which the image check finds nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

from aisandbox.check import engine

STATUS = """Package: {name}
Status: install ok installed
Architecture: amd64
Version: {version}
"""
PACKAGES = {"dpkg": "1.21.22", "libssl3": "3.0.17-1~deb12u3", "python3": "3.11.2-1+b1", "waagent": "2.9.0.4-1"}
ENABLED = (
    "cloud-init.target.wants/cloud-final.service",
    "sysinit.target.wants/nftables.service",
    "multi-user.target.wants/ssh.service",
    "multi-user.target.wants/aisandbox-configure.service",
    "multi-user.target.wants/aisandbox-model.service",
    "multi-user.target.wants/vllm.service",
    "multi-user.target.wants/open-webui.service",
)
KERNEL = "6.1.0-56-cloud-amd64"
ELF = b"\x7fELF\x02\x01\x01"
TCP = "  sl  local_address rem_address   st\n   0: 00000000:0016 00000000:0000 0A 0 0 0\n"
FILES: dict[str, str | bytes] = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/bash\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "sandbox:x:972:972::/var/lib/aisandbox/sandbox:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        "agent:x:980:980::/var/lib/agent:/usr/sbin/nologin\n"
    ),
    "etc/shadow": "root:!:1:0:99999:7:::\ndaemon:*:1:::::\nsandbox:!:1::::::\nnobody:*:1::::::\nagent:!*:1::::::\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nsandbox:x:972:\nagent:x:980:\n",
    "etc/gshadow": "root:*::\nsandbox:!::\n",
    "etc/sudoers": "root ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n",
    "etc/sudoers.d/README": "read it\n",
    "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication yes\n",
    "etc/ssh/sshd_config.d/10.conf": (
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin no\nClientAliveInterval 180\n"
    ),
    "etc/machine-id": "",
    "etc/hostname": "aisandbox\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\n",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "etc/fstab": "LABEL=root / ext4 defaults 0 1\n",
    "etc/cloud/cloud.cfg": "system_info:\n  default_user:\n    name: debian\n    sudo: ALL\n",
    "etc/nftables.conf": "chain input {\n type filter hook input priority filter; policy drop;\n}\n",
    "etc/apt/sources.list": "deb http://deb.debian.org/debian bookworm main\n",
    "etc/waagent.conf": "AutoUpdate.Enabled=y\n",
    "etc/update-motd.d/50-aisandbox": "#!/bin/sh\necho hello\n",
    "root/.bashrc": "# bashrc\n",
    "root/.profile": "# profile\n",
    "usr/share/base-files/dot.bashrc": "# bashrc\n",
    "usr/share/base-files/dot.profile": "# profile\n",
    "usr/bin/dash": ELF,
    "usr/bin/python3": ELF,
    "usr/bin/cloud-init": "#!/usr/bin/python3\n",
    "usr/bin/sudo": ELF,
    "usr/local/bin/aisandbox": "#!/bin/sh\nexit 0\n",
    **{
        f"usr/lib/systemd/system/{name}.target": "[Unit]\nDefaultDependencies=no\n"
        for name in ("basic", "multi-user", "shutdown", "sysinit")
    },
    "usr/lib/systemd/system/apt-daily.timer": "[Timer]\n",
    "usr/lib/systemd/system/apt-daily-upgrade.timer": "[Timer]\n",
    f"boot/vmlinuz-{KERNEL}": "kernel",
    f"boot/initrd.img-{KERNEL}": "disk",
    f"usr/lib/modules/{KERNEL}/modules.dep": "",
    "boot/grub/grub.cfg": f"linux /boot/vmlinuz-{KERNEL} ro console=ttyS0,115200n8 earlyprintk=ttyS0 rootdelay=300\n",
    "opt/aisandbox/release.json": "{}\n",
    "opt/aisandbox/cache/vllm/tables.json": json.dumps(dict.fromkeys(engine.TABLES, ["x"])),
    "opt/aisandbox/lib/marketplace.yaml": "schema: 1\n",
    "opt/aisandbox/lib/aisandbox/__init__.py": "",
    "var/lib/dpkg/status": "\n".join(STATUS.format(name=name, version=version) for name, version in PACKAGES.items()),
    "var/log/dpkg.log": "",
    "proc/net/tcp": TCP,
    **{f"usr/share/doc/{name}/copyright": "licence\n" for name in PACKAGES},
    **{f"usr/lib/systemd/system/{name.split('/')[1]}": "[Service]\nExecStart=/bin/true\n" for name in ENABLED},
}
FOLDERS = ("home", "tmp", "var/tmp", "root", "var/lib/agent", "var/lib/aisandbox", "etc/aisandbox", "dev", "run")
STICKY = ("tmp", "var/tmp")
LINKS = {
    "lib": "usr/lib",
    "bin": "usr/bin",
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "etc/systemd/system/apt-daily.timer": "/dev/null",
    "etc/systemd/system/apt-daily-upgrade.timer": "/dev/null",
    **{f"etc/systemd/system/{name}": f"/usr/lib/systemd/system/{name.split('/')[1]}" for name in ENABLED},
}
RUNNABLE = ("etc/update-motd.d/50-aisandbox", "usr/local/bin/aisandbox", "usr/bin/cloud-init")


class Root:
    """A root file system in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in FOLDERS:
            (folder / path).mkdir(parents=True, exist_ok=True)
            (folder / path).chmod(0o755)
        for path in STICKY:
            (folder / path).chmod(0o1777)
        for path, content in FILES.items():
            self.write(path, content)
        for path, target in LINKS.items():
            self.link(path, target)
        for path in RUNNABLE:
            self.mode(path, 0o755)
        self.mode("usr/bin/sudo", 0o4755)

    def start(self) -> None:
        """Make it what it is after the first boot."""
        self.write("etc/ssh/ssh_host_ed25519_key", "key", 0o600)
        self.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("etc/aisandbox/open-webui.env", "A=1\n", 0o600)

    def write(
        self, path: str, content: str | bytes = "x\n", mode: int = 0o644, owner: tuple[int, int] = (0, 0)
    ) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        os.chown(file, *owner)
        file.chmod(mode)

    def replace(self, path: str, content: str) -> None:
        """Put a file where a link was."""
        self.remove(path)
        self.write(path, content)

    def enable(self, unit: str, content: str) -> None:
        self.write(f"usr/lib/systemd/system/{unit}", content)
        self.link(f"etc/systemd/system/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}")

    def append(self, path: str, line: str) -> None:
        self.write(path, (self.folder / path).read_text() + line + "\n")

    def link(self, path: str, target: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(target)

    def mode(self, path: str, mode: int) -> None:
        (self.folder / path).chmod(mode)

    def own(self, path: str, uid: int, gid: int) -> None:
        os.chown(self.folder / path, uid, gid)

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()

    def package(self, name: str, version: str = "1", status: str = "install ok installed") -> None:
        self.append(
            "var/lib/dpkg/status",
            "\n" + STATUS.format(name=name, version=version).replace("install ok installed", status),
        )
        self.write(f"usr/share/doc/{name}/copyright", "licence\n")
