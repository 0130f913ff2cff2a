"""Puts a release in place: its folder becomes `current`, and the rest of the machine follows.

`/opt/aisandbox/lib` and its like are links through `current`, so one rename leads all of them to another release. Files
outside `/opt` are copied from the release's folder. Both can be broken off anywhere, and repeated with either release.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade import rules, tree
from aisandbox.instance.keep.upgrade.state import State, Upgrades


def new_folder(upgrades: Upgrades, version: str) -> Path:
    """An empty folder for a release of that version."""
    names = (version, *(f"{version}-{number}" for number in range(2, 1000)))
    folder = next(folder for name in names if not tree.exists(folder := upgrades.releases / name))
    tree.make_folder(folder)
    return folder


def share(upgrades: Upgrades, folder: Path) -> None:
    """Link what the current release has, and this one lacks, into the folder of this one."""
    for live in _entries(upgrades.root):
        path = str(live.relative_to(upgrades.root))
        if tree.is_own_link(upgrades.root, path) and live.exists() and not tree.exists(folder / path):
            _lead(folder / path, live.resolve())


def _entries(root: Path) -> Iterator[Path]:
    """The entries of `/opt/aisandbox` and of its `envs`: what a release may own there."""
    opt = root / rules.OPT
    yield from opt.glob("*")
    yield from opt.glob("envs/*")


def running(upgrades: Upgrades, version: str, paths: tuple[str, ...]) -> str:
    """Name of the folder of the release that runs. An image has none: it is made before the first upgrade.

    Args:
        paths: what `switch` will move there; so nothing may be there yet that is no link.
    """
    folder = upgrades.current.resolve()
    mine = (path for path in paths if rules.in_opt(path) and not tree.is_own_link(upgrades.root, path))
    if not folder.is_dir() or any(tree.exists(upgrades.root / path) and tree.exists(folder / path) for path in mine):
        folder = new_folder(upgrades, version)
        share(upgrades, folder)
        _point(upgrades, folder.name)
    return folder.name


def take_over(upgrades: Upgrades) -> None:
    """Convert the release that version 0.1's upgrade kept for a rollback. Can be repeated."""
    former = upgrades.base / "previous"
    kept = files.read_json(former / upgrades.previous_file.name)
    if kept is None:
        return
    paths = [item["path"] for item in kept["items"]]
    folder = upgrades.releases / f"{kept['version']}-kept"
    way_back = State(
        operation="rollback",
        from_version="",
        to_version=kept["version"],
        former="",
        target=folder.name,
        paths=tuple(paths),
        units=tuple(kept["units"]),
        ports={},
        new_ports=kept["ports"],
        timeout_s=0,
        release=kept["release"],
        former_release=None,
        chat_changes=kept["chat_changes"],
        restore=kept["database"],
    )
    files.write_json(upgrades.previous_file, asdict(way_back))
    if not folder.exists():
        tree.move(former / "root", folder)
    for path in paths:
        if tree.is_own_link(folder, path):
            # Version 0.1 moved the link as if it were the folder.
            _lead(folder / path, upgrades.current.resolve() / path)
    share(upgrades, folder)
    tree.remove(former)


def remember(upgrades: Upgrades, state: State) -> None:
    """Copy files outside `/opt`, with the owner's changes, to the former release. Call it in the phase `ready`."""
    for path in state.paths:
        if not rules.in_opt(path):
            _copy(upgrades.root / path, upgrades.releases / state.former / path)


def switch(upgrades: Upgrades, state: State, name: str) -> None:
    """Put one of the two releases in place, however far another call has come. Call it in the phase `switching`."""
    for path in filter(rules.in_opt, state.paths):
        _take_in(upgrades, state, path)
    _point(upgrades, name)
    for path in state.paths:
        live, new = upgrades.root / path, upgrades.releases / name / path
        if not rules.in_opt(path):
            _copy(new, live)
        elif tree.exists(new):
            tree.link(live, tree.own_link(path))
        else:
            tree.remove(tree.partial_of(live))
            tree.remove(live)


def _take_in(upgrades: Upgrades, state: State, path: str) -> None:
    """Move what the image brought into the folder of the former release, and leave a link."""
    live, kept = upgrades.root / path, upgrades.releases / state.former / path
    if tree.is_own_link(upgrades.root, path):
        return
    if tree.exists(live) and not tree.exists(kept):
        tree.move(live, kept)
    if tree.exists(kept):
        # Where renaming is impossible it was copied, and the power may have failed before the original was gone.
        tree.remove(live)
        for other in upgrades.releases.iterdir():
            if other.name not in (state.former, state.target) and not tree.exists(other / path):
                _lead(other / path, kept)
        tree.link(live, tree.own_link(path))


def commit(upgrades: Upgrades, state: State) -> None:
    """Keep the former release for a rollback, in place of the one before. Call it in the phase `committing`."""
    files.write_json(upgrades.previous_file, asdict(state.reversed))
    if state.release is None:
        files.remove(upgrades.installed_file)
    else:
        files.write(upgrades.installed_file, state.release)
    clear(upgrades)
    tree.remove(upgrades.download)


def clear(upgrades: Upgrades, state: State | None = None) -> None:
    """Remove releases that nobody needs, and copies that were broken off. Can be repeated."""
    if state:
        for path in state.paths:
            tree.remove(tree.partial_of(upgrades.releases / state.former / path))
    for rest in unused(upgrades, rollback=True):
        tree.remove(rest)


def unused(upgrades: Upgrades, *, rollback: bool) -> Iterator[Path]:
    """Everything that the current release does not need, nor, with `rollback`, the one before."""
    releases = upgrades.releases.resolve()
    folders = {upgrades.current.resolve()}
    if rollback and upgrades.kept:
        folders.add(releases / upgrades.kept.target)
    # Their own, and what they have in folders of others.
    needed = folders | {entry.resolve() for folder in folders for entry in _entries(folder) if entry.is_symlink()}
    for folder in releases.glob("*"):
        yield from _without(folder, needed)


def _without(path: Path, needed: set[Path]) -> Iterator[Path]:
    if path in needed:
        return
    if any(path in other.parents for other in needed):
        for entry in path.iterdir():
            yield from _without(entry, needed)
    else:
        yield path


def _point(upgrades: Upgrades, name: str) -> None:
    tree.link(upgrades.current, os.path.relpath(upgrades.releases / name, upgrades.current.parent))


def _lead(path: Path, target: Path) -> None:
    tree.link(path, os.path.relpath(target, path.parent))


def _copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`, or remove it where `source` is missing."""
    tree.remove(tree.partial_of(target))
    if tree.measure(source.parent, [source.name]) == tree.measure(target.parent, [target.name]):
        return
    if not tree.exists(source) or (target.is_dir() and not target.is_symlink()):
        tree.remove(target)
    if tree.exists(source):
        tree.copy(source, target)
