"""Small releases and instances for tests of upgrades: real files, archives and signatures, and no services."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from aisandbox.builder import release as releases
from aisandbox.builder import signing
from aisandbox.instance.keep.upgrade import bundle, prepare, rules, tree
from aisandbox.instance.keep.upgrade.bundle import Archive, Component, Release
from aisandbox.instance.keep.upgrade.prepare import Instance
from aisandbox.instance.keep.upgrade.source import Source, open_source
from aisandbox.instance.keep.upgrade.state import State, Upgrades
from tests.support.keys import Pair

PORTS = {"chat": 3000, "api": 8000, "api_upstream": 8001, "sandbox": 8080}
UNIT = f"{rules.UNITS}/vllm.service"
LINK = f"{rules.UNITS}/multi-user.target.wants/vllm.service"
OWNED = {
    "appliance": (f"{rules.OPT}/lib", f"{rules.OPT}/release.json"),
    "env-vllm": (f"{rules.OPT}/envs/vllm", f"{rules.OPT}/envs/vllm.txt"),
    "models": (f"{rules.OPT}/models",),
    "system": (UNIT, LINK),
}


def lay_out(root: Path, version: str, flavour: str = "cpu") -> None:
    """The files of a release below `root`."""
    opt = root / rules.OPT
    texts = {
        opt / "lib" / "aisandbox" / "code.py": f"VERSION = '{version}'\n",
        opt / "lib" / "aisandbox" / "same.py": "SAME = True\n",
        opt / "release.json": json.dumps({"version": version, "flavour": flavour}),
        opt / "envs" / "vllm" / "lib" / "engine.py": f"engine of {version}\n",
        opt / "envs" / "vllm.txt": f"vllm=={version}\n",
        opt / "models" / "guide" / "config.json": "{}\n",
        root / UNIT: f"[Unit]\nDescription=vllm {version}\n",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    python = opt / "envs" / "vllm" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to("/usr/bin/python3")
    (root / LINK).parent.mkdir(parents=True)
    (root / LINK).symlink_to(f"/{UNIT}")
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')


def describe(version: str, components: Iterable[Component]) -> Release:
    return Release(
        product="aisandbox",
        version=version,
        flavour="cpu",
        architecture=platform.machine(),
        os={"family": "debian", "version": "12"},
        upgrade_from="0.1.0",
        notes=("Better.",),
        packages={"dpkg": ""},
        ports=PORTS,
        retired=(),
        components=tuple(components),
    )


def pack(root: Path, out: Path, version: str, pair: Pair, owned: dict[str, tuple[str, ...]] = OWNED) -> Release:
    """Write and sign a release of the files below `root`, as the builder does."""
    out.mkdir(parents=True)
    found = []
    for name, paths in owned.items():
        measured = tree.measure(root, paths)
        component = Component(name, paths, measured.digest, measured.bytes, measured.entries, None)
        found.append(replace(component, archive=releases.pack(root, paths, out / component.file)))
    release = describe(version, found)
    sign(out, release, pair)
    return release


def sign(out: Path, release: Release, pair: Pair) -> None:
    (out / bundle.MANIFEST).write_text(release.to_json())
    signing.sign(out / bundle.MANIFEST, pair.secret)


Content = Callable[[tarfile.TarFile], None]


def pack_by_hand(out: Path, pair: Pair, content: Content, paths: tuple[str, ...] = (f"{rules.OPT}/lib",)) -> Release:
    """A signed release of one component whose archive holds whatever `content` adds."""
    out.mkdir(parents=True)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
        content(archive)
    component = Component("evil", paths, "d" * 64, 1 << 20, 100, None)
    path = out / component.file
    path.write_bytes(subprocess.run(["zstd", "-q"], input=plain.getvalue(), capture_output=True, check=True).stdout)
    packed = Archive(tree.file_digest(path), path.stat().st_size)
    release = describe("0.2.0", [replace(component, archive=packed)])
    sign(out, release, pair)
    return release


@dataclass
class Rig:
    """An instance of version 0.1.0 below a folder."""

    root: Path
    pair: Pair
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        lay_out(self.root, "0.1.0")
        (self.root / "run").mkdir()
        self.data = self.root / "var/lib/aisandbox"
        self.data.mkdir(parents=True)
        self.upgrades = Upgrades(self.root, self.data)

    @property
    def version(self) -> str:
        return self._baked("version")

    def _baked(self, name: str) -> str:
        return str(json.loads((self.root / rules.OPT / "release.json").read_text())[name])

    @property
    def instance(self) -> Instance:
        return Instance("aisandbox", self.version, self._baked("flavour"), PORTS, self.root / "run", self.data)

    def digest(self) -> str:
        """Of all that a release may own: two whole releases, and no mixture, have digests that are known."""
        folders = [f"{rules.OPT}/{name}" for name in ("lib", "release.json", "envs", "models")]
        return tree.measure(self.root, [*folders, "etc", "usr"]).digest

    def prepare(self, source: str | Path, *, allow_downgrade: bool = False) -> State:
        """Everything of `aisandbox upgrade` before the exchange."""
        opened: Source = open_source(str(source))
        with self.upgrades.locked():
            release = prepare.read_release(opened, self.pair.line, self.upgrades.download)
            prepare.check(release, self.instance, self.root, allow_downgrade)
            plan = prepare.compare(release, self.upgrades, self.said.append)
            prepare.check_space(plan, opened, self.upgrades)
            folder = prepare.fetch(plan, opened, self.upgrades, self.said.append)
            state = prepare.upgrade_state(plan, folder, self.instance, self.upgrades, 5)
            self.upgrades.save(state)
        return state
