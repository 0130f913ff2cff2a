"""Everything before the exchange: the release is fetched, checked and unpacked beside the one that runs."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade import bundle, database, rules, signature, switch, tree, unpack
from aisandbox.instance.keep.upgrade.bundle import Component, Release
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.services import WANTS, units_of
from aisandbox.instance.keep.upgrade.source import Source
from aisandbox.instance.keep.upgrade.state import State, Upgrades

RESERVE = 256 << 20
"""Bytes that must stay free."""
PER_ENTRY = 1024
"""Bytes that a file takes beside its content."""
CHAT = f"{rules.OPT}/envs/open-webui"
SHOWN_S = 5.0
TOOL = (
    "__init__.py",
    *(f"instance/{name}.py" for name in ("__init__", "doors", "files", "http_probe", "last_words", "lock")),
    *(f"instance/{name}" for name in ("keep/__init__.py", "keep/upgrade", "run/__init__.py", "run/systemctl.py")),
)
"""What the worker is made of: it needs nothing else."""
ENTRY = "instance/upgrade/worker.py"
"""By this name units start the worker, those of releases since 0.1 included: one release's unit runs another's tool."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Instance:
    """What a release must fit."""

    product: str
    version: str
    flavour: str
    ports: Mapping[str, int]
    run: Path
    data: Path


@dataclass(frozen=True)
class Plan:
    """What an upgrade would do."""

    release: Release
    changed: tuple[Component, ...]
    retired: tuple[str, ...]
    """Files that go for good."""

    @property
    def download(self) -> int:
        return sum(component.archive.bytes for component in self.changed if component.archive)

    @property
    def unpacked(self) -> int:
        return sum(component.bytes + component.entries * PER_ENTRY for component in self.changed)

    @property
    def empty(self) -> bool:
        return not self.changed and not self.retired


class _Steps:
    """Tells how far a long step is, now and then."""

    def __init__(self, say: Say, what: str, total: int) -> None:
        self._say, self._what, self._total = say, what, total
        self._done, self._next = 0, time.monotonic() + SHOWN_S

    def add(self, count: int) -> None:
        self.at(self._done + count)

    def at(self, done: int) -> None:
        self._done = done
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SHOWN_S
            percent = f" ({100 * done // self._total} %)" if self._total else ""
            self._say(f"  {self._what}: {done / 1e6:.0f} MB{percent}")


def read_release(source: Source, key: str, folder: Path) -> Release:
    """The release that the source has, once the key's owner has been found to have signed it.

    Raises:
        UpgradeError: it cannot be had, or the signature is another's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = source.fetch(bundle.MANIFEST, folder, bundle.LONGEST_MANIFEST, lambda _: None)
    name = bundle.MANIFEST + signature.SUFFIX
    signed = source.fetch(name, folder, signature.LONGEST_SIGNATURE, lambda _: None)
    try:
        signature.verify(description, signed, key)
    except FileNotFoundError as error:
        raise UpgradeError("minisign is not installed", "sudo apt-get install minisign") from error
    except signature.SignatureError as error:
        raise UpgradeError(
            f"the release is not signed by the key that this instance trusts: {error}",
            "get the release from its vendor; if the vendor has a new key: --public-key FILE",
        ) from error
    return bundle.parse(description.read_bytes())


def check(release: Release, instance: Instance, root: Path, allow_downgrade: bool) -> None:
    """Check that the release is for this instance.

    Raises:
        UpgradeError: it is for another product, flavour or system, or for instances of other versions.
    """
    if release.product != instance.product:
        raise UpgradeError(f"this is a release of {release.product}, not of {instance.product}", "get the right one")
    if release.flavour != instance.flavour:
        raise UpgradeError(
            f"this release has the flavour {release.flavour}, this instance the flavour {instance.flavour}",
            f"use the release {release.product}-{release.version}-{instance.flavour} of the same vendor; "
            f"for the other flavour, deploy an instance from its image and attach the data volume to it",
        )
    if release.architecture != platform.machine():
        raise UpgradeError(f"this release is for {release.architecture}", f"download the {platform.machine()} build")
    system = _system(root)
    wanted = f"{release.os.get('family')} {release.os.get('version')}"
    if (system.get("ID"), system.get("VERSION_ID")) != (release.os.get("family"), release.os.get("version")):
        found = f"{system.get('ID')} {system.get('VERSION_ID')}"
        raise UpgradeError(
            f"this release is for {wanted}, and the instance runs {found}",
            "deploy a new instance from the release's image, and attach the data volume to it",
        )
    if bundle.older(instance.version, release.upgrade_from):
        raise UpgradeError(
            f"version {release.version} can be reached from {release.upgrade_from} on; this is {instance.version}",
            f"upgrade to {release.upgrade_from} first",
        )
    if bundle.older(release.version, instance.version) and not allow_downgrade:
        raise UpgradeError(
            f"version {release.version} is older than {instance.version}, which runs",
            "sudo aisandbox upgrade --rollback goes back to the version before; "
            "--allow-downgrade takes an older one all the same, whatever it makes of newer data",
        )
    missing = _missing_packages(release.packages)
    if missing:
        raise UpgradeError(
            f"the release needs Debian packages that are missing or too old: {', '.join(missing)}",
            f"sudo apt-get update && sudo apt-get install {' '.join(missing)}",
        )


def compare(release: Release, upgrades: Upgrades, say: Say) -> Plan:
    """Find out what the release brings that is not there already."""
    say("Comparing the release with what is installed.")
    memory = tree.Memory(upgrades.digests_file)
    steps = _Steps(say, "compared", sum(component.bytes for component in release.components))
    changed = []
    for component in release.components:
        measured = memory.measure(component.name, upgrades.root, component.paths, steps.add)
        if measured.digest != component.digest:
            changed.append(component)
    memory.keep()
    gone = {*_former_paths(upgrades), *release.retired} - release.paths
    retired = sorted(path for path in gone if rules.may_replace(path) and tree.exists(upgrades.root / path))
    absent = [component.name for component in changed if component.archive is None]
    if absent:
        raise UpgradeError(
            "this release carries only what is new since an earlier one, from which the instance differs in "
            + ", ".join(absent),
            "get the full release, or upgrade to the one before first",
        )
    return Plan(release, tuple(changed), tuple(retired))


def check_space(plan: Plan, source: Source, upgrades: Upgrades) -> None:
    """Check that the disks have room.

    Raises:
        UpgradeError: one has not; nothing was written.
    """
    largest = max((component.archive.bytes for component in plan.changed if component.archive), default=0)
    needed = plan.unpacked + RESERVE + (largest if source.copies else 0)
    _check_free(upgrades.base, needed, "the release")
    if _chat_changes(plan.changed):
        _check_free(upgrades.backups, 2 * database.size(upgrades) + RESERVE, "a copy of the chat page's database")


def _check_free(folder: Path, needed: int, what: str) -> None:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UpgradeError(
            f"{folder} has {free / 1e9:.1f} GB free, and {what} needs {needed / 1e9:.1f} GB",
            "make room: sudo aisandbox upgrade --forget removes the release before; sudo apt-get clean; "
            "sudo journalctl --vacuum-size=100M",
        )


def fetch(plan: Plan, source: Source, upgrades: Upgrades, say: Say) -> Path:
    """Fetch and unpack what has changed, and check it. The release that runs is not touched.

    Returns:
        The folder of the new release.

    Raises:
        UpgradeError: a file cannot be had or is not what was signed, or the disk is full.
    """
    switch.take_over(upgrades)
    switch.clear(upgrades)
    try:
        root = switch.new_folder(upgrades, plan.release.version)
        upgrades.download.mkdir(parents=True, exist_ok=True)
        for component in plan.changed:
            _fetch(component, source, upgrades, root, say)
        switch.share(upgrades, root)
        os.sync()
    except BaseException as error:
        switch.clear(upgrades)
        if not isinstance(error, OSError):
            raise
        raise UpgradeError(
            f"the release could not be unpacked: {error.strerror or error}",
            "make room (df -h /opt), then run the same command again; what has arrived is kept",
        ) from error
    tree.remove(upgrades.download)
    return root


def _fetch(component: Component, source: Source, upgrades: Upgrades, root: Path, say: Say) -> None:
    assert component.archive
    size = component.archive.bytes
    say(f"Fetching {component.name} ({size / 1e6:.1f} MB).")
    archive = upgrades.download / component.file
    if not (archive.is_file() and tree.file_digest(archive) == component.archive.sha256):
        archive = source.fetch(component.file, upgrades.download, size, _Steps(say, "fetched", size).at)
    if archive.stat().st_size != size or tree.file_digest(archive) != component.archive.sha256:
        if archive.parent == upgrades.download:
            archive.unlink()
        raise UpgradeError(f"{component.file} is not what was signed", "get the release again")
    say(f"Unpacking {component.name} ({component.bytes / 1e6:.1f} MB).")
    unpack.unpack(archive, component, root, _Steps(say, "unpacked", component.bytes).add)
    if tree.measure(root, component.paths).digest != component.digest:
        raise UpgradeError(f"the content of {component.file} is not what its release says", bundle.ASK)
    if archive.parent == upgrades.download:
        archive.unlink()


def upgrade_state(plan: Plan, folder: Path, instance: Instance, upgrades: Upgrades, timeout_s: float) -> State:
    """The exchange that leads to the release, which lies unpacked in `folder`."""
    touched = sorted({path for component in plan.changed for path in component.paths} | set(plan.retired))
    for path in touched:
        if path in plan.retired or _switched_off(path, upgrades.root):
            tree.remove(folder / path)
    paths = tuple(path for path in touched if tree.exists(upgrades.root / path) or tree.exists(folder / path))
    return State(
        operation="upgrade",
        from_version=instance.version,
        to_version=plan.release.version,
        former=switch.running(upgrades, instance.version, paths),
        target=folder.name,
        paths=paths,
        units=units_of([*plan.release.paths, *plan.retired, *_former_paths(upgrades)]),
        ports=dict(instance.ports),
        new_ports=plan.release.ports,
        timeout_s=timeout_s,
        release=plan.release.to_json(),
        former_release=upgrades.installed,
        chat_changes=_chat_changes(plan.changed),
    )


def rollback_state(instance: Instance, upgrades: Upgrades, timeout_s: float) -> State:
    """The exchange that leads back to the release before.

    Raises:
        UpgradeError: none is kept.
    """
    switch.take_over(upgrades)
    kept = upgrades.kept
    if kept is None:
        raise UpgradeError(
            "no earlier release is kept on this instance",
            "sudo aisandbox upgrade SOURCE --allow-downgrade takes an older one",
        )
    return replace(
        kept,
        from_version=instance.version,
        former=switch.running(upgrades, instance.version, kept.paths),
        ports=dict(instance.ports),
        former_release=upgrades.installed,
        timeout_s=timeout_s,
    )


def place_tool(upgrades: Upgrades, instance: Instance, package: Path) -> None:
    """Put a copy of the worker where no release reaches it.

    Args:
        package: folder of the package `aisandbox`.
    """
    fresh = upgrades.tool.with_name("tool.new")
    tree.remove(fresh)
    for name in TOOL:
        source, target = package / name, fresh / package.name / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    entry = fresh / package.name / ENTRY
    entry.parent.mkdir()
    entry.write_text("from aisandbox.instance.keep.upgrade.worker import main\n\nmain()\n")
    tree.remove(upgrades.tool)
    tree.move(fresh, upgrades.tool)
    places = {"run": str(instance.run), "data": str(instance.data)}
    files.write_json(upgrades.base / "places.json", places)


def forget(upgrades: Upgrades) -> int:
    """Remove the release before, and the record of how the last upgrade ended. Returns how many bytes were freed."""
    switch.take_over(upgrades)
    freed = disk_use(upgrades)
    # Without its record, nothing that is left of it can be taken for a release.
    files.remove(upgrades.previous_file)
    for path in _forgettable(upgrades):
        tree.remove(path)
    files.remove(upgrades.result_file)
    return freed


def disk_use(upgrades: Upgrades) -> int:
    """Bytes that the release before takes, and copies of the database."""
    return sum(
        status.st_blocks * 512
        for path in _forgettable(upgrades)
        for _, status in tree.entries(path.parent, [path.name])
    )


def _forgettable(upgrades: Upgrades) -> list[Path]:
    return [*switch.unused(upgrades, rollback=False), upgrades.download, upgrades.backups]


def _switched_off(path: str, root: Path) -> bool:
    """Whether the link would make a service start with the machine that its owner has disabled."""
    found = WANTS.fullmatch(path)
    return bool(found and not tree.exists(root / path) and tree.exists(root / rules.UNITS / found["unit"]))


def _former_paths(upgrades: Upgrades) -> list[str]:
    installed = files.read_json(upgrades.installed_file) or {}
    return [path for entry in installed.get("components", ()) for path in entry["paths"]]


def _chat_changes(changed: tuple[Component, ...]) -> bool:
    return any(CHAT in component.paths for component in changed)


def _system(root: Path) -> dict[str, str]:
    try:
        lines = (root / "etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}


def _missing_packages(packages: Mapping[str, str]) -> list[str]:
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev} ${binary:Package} ${Version}\\n"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in shown.splitlines())
    installed = {row[1].partition(":")[0]: row[2] for row in rows if len(row) == 3 and row[0].endswith("i")}
    return sorted(
        name
        for name, least in packages.items()
        if name not in installed or (least and bundle.older(installed[name], least))
    )
