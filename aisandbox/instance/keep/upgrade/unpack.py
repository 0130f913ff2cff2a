"""Unpacks a component beside the running release. The archive is signed, but treated as untrusted."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

from aisandbox.instance.keep.upgrade import rules, tree
from aisandbox.instance.keep.upgrade.bundle import ASK, Component
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.instance.keep.upgrade.tree import BLOCK, Progress

OWNERS = frozenset({(0, 0)})
"""User and group numbers that files of a release may belong to."""
AGAIN = "download the release again; if the error persists, report it to the vendor"


def unpack(archive: Path, component: Component, root: Path, progress: Progress) -> None:
    """Unpack into `root`, which stands for `/`, and in which nothing of the component lies yet.

    Raises:
        UpgradeError: the archive is damaged, or holds what no component may.
        OSError: the disk is full, …
    """
    command = ["zstd", "--decompress", "--stdout", "--quiet", str(archive)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|", errorlevel=2) as members:
            _unpack(members, component, root, progress)
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        process.kill()
        said = process.stderr.read().decode(errors="replace").strip()
        raise UpgradeError(f"{archive.name} is damaged: {said or error}", AGAIN) from error
    finally:
        process.kill()
        process.communicate()


def _unpack(members: tarfile.TarFile, component: Component, root: Path, progress: Progress) -> None:
    folders = set[str]()
    for path in component.paths:
        tree.make_folder((root / path).parent)
    size = 0
    for count, member in enumerate(members, 1):
        size += member.size
        if count > component.entries or size > component.bytes:
            raise _refusal(component, f"holds more than {component.entries} files or {component.bytes} bytes")
        _admit(member, component, folders)
        target = root / member.name
        if member.isdir():
            target.mkdir()
            folders.add(member.name)
        elif member.issym():
            target.symlink_to(member.linkname)
        else:
            reader = members.extractfile(member)
            assert reader
            with target.open("xb") as writer:
                while block := reader.read(BLOCK):
                    writer.write(block)
                    progress(len(block))
        if not member.issym():
            target.chmod(member.mode)
        if member.isreg():
            os.utime(target, (member.mtime, member.mtime))


def _admit(member: tarfile.TarInfo, component: Component, folders: set[str]) -> None:
    """Refuse what is not the component's own, and whatever could reach beyond it."""
    name = member.name
    parent = name.rpartition("/")[0]
    # Every parent is a folder of this archive: nothing is ever written through a link.
    if not rules.clean(name) or not (name in component.paths or parent in folders):
        raise _refusal(component, f"holds {name!r}, which is outside the component")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise _refusal(component, f"holds {name!r}, which is neither file, folder nor symbolic link")
    if (member.uid, member.gid) not in OWNERS:
        raise _refusal(component, f"holds {name!r}, which belongs to {member.uid}:{member.gid}, not to root")
    reason = rules.refusal_of_link(name, member.linkname) if member.issym() else rules.refusal_of_mode(member.mode)
    if reason:
        raise _refusal(component, f"holds {name!r}, which {reason}")


def _refusal(component: Component, what: str) -> UpgradeError:
    return UpgradeError(f"the component {component.name} {what}", ASK)
