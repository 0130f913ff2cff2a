"""Small root file systems with packages in them, honest and hostile ones, for tests of what lists packages."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVS = "opt/aisandbox/envs"


@dataclass(frozen=True)
class Rootfs:
    """A root file system below a folder."""

    root: Path

    def file(self, path: str, content: str | bytes = "") -> Path:
        """Write a file with all folders above it."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def link(self, path: str, target: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).symlink_to(target)

    def debian(self, name: str, version: str, copyright_file: str | None = None, **fields: str) -> None:
        """Add an installed Debian package."""
        record = {"Package": name, "Status": "install ok installed", "Architecture": "amd64", "Version": version}
        status = self.root / "var/lib/dpkg/status"
        before = status.read_text() if status.exists() else ""
        lines = [f"{key.replace('_', '-')}: {value}" for key, value in {**record, **fields}.items()]
        self.file("var/lib/dpkg/status", before + "\n".join(lines) + "\n\n")
        self.file(f"var/lib/dpkg/info/{name}.md5sums", f"{'0' * 32}  usr/share/doc/{name}/copyright\n")
        if copyright_file is not None:
            self.file(f"usr/share/doc/{name}/copyright", copyright_file)

    def python(self, environment: str, name: str, version: str, *headers: str, body: str = "") -> None:
        """Add a distribution to an environment, and to its lock."""
        folder = f"{ENVS}/{environment}/lib/python3.11/site-packages/{name.replace('-', '_')}-{version}.dist-info"
        record = "\n".join(("Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *headers))
        self.file(f"{folder}/METADATA", f"{record}\n\n{body}")
        self.file(f"{folder}/RECORD", f"{name}/__init__.py,sha256=abc,10\n{name}/__pycache__/x.pyc,,\n")
        lock = self.root / ENVS / f"{environment}.txt"
        digest = hashlib.sha256(f"{name}{version}".encode()).hexdigest()
        before = lock.read_text() if lock.exists() else "# made by uv\n"
        self.file(f"{ENVS}/{environment}.txt", f"{before}{name}=={version} \\\n    --hash=sha256:{digest}\n")

    def npm(self, place: str, record: dict[str, Any] | str) -> None:
        """Add a package of npm in a folder below /opt/aisandbox."""
        text = record if isinstance(record, str) else json.dumps(record)
        self.file(f"opt/aisandbox/{place}/package.json", text)


DEP5 = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: thing

Files: *
Copyright: 2020 Somebody
License: GPL-2+ or Artistic, and Expat

Files: debian/*
Copyright: 2021 Somebody Else
License: own-terms
 Do as you like,
 .
 but do it well.

License: GPL-2+
 See /usr/share/common-licenses/GPL-2.
"""


def sound(root: Path) -> Rootfs:
    """A root file system in which everything is as it should be."""
    made = Rootfs(root)
    made.file("etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    made.file("etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n# deb http://no.example/ x y\n")
    made.debian("libthing1", "1:2.0-3+b1", DEP5, Source="thing (1:2.0-3)", Section="libs", Maintainer="A B <a@b.org>")
    made.debian("old", "1.0", "This is free software, see the file.\n", Homepage="https://old.example/")
    made.debian("gone", "1.0", Status="deinstall ok config-files")
    made.python("vllm", "Some.Thing", "1.2+cpu", "License-Expression: MIT")
    made.python("open-webui", "Some.Thing", "1.2+cpu", "License-Expression: MIT")
    made.python("open-webui", "open-webui", "0.12.4", "License: Open WebUI License", "        ", "        All rights …")
    made.npm("web/node_modules/left", {"name": "left", "version": "1.0.0", "license": "(MIT OR Apache-2.0)"})
    made.npm("web/node_modules/@at/right", {"name": "@at/right", "version": "2.0.0", "license": {"type": "ISC"}})
    made.npm("web/node_modules/@at/right/node_modules/left", {"name": "left", "version": "0.9.0", "license": "MIT"})
    lock = {"node_modules/left": {"version": "1.0.0", "integrity": "sha512-" + "A" * 86 + "=="}}
    made.file("opt/aisandbox/web/node_modules/.package-lock.json", json.dumps({"packages": lock}))
    made.file("opt/aisandbox/lib/aisandbox/__init__.py", '"""Ours."""\n')
    made.file("opt/aisandbox/models/models--aisandbox--guide/refs/main", "f00d")
    made.file("opt/aisandbox/models/models--aisandbox--guide/blobs/1", "weights")
    made.link("opt/aisandbox/models/models--aisandbox--guide/snapshots/f00d/model.safetensors", "../../blobs/1")
    return made
