"""Exchanges the paths of two releases. Every step can be broken off anywhere, and undone afterwards.

While paths are exchanged, `next/root` holds what is to come, and `old/root` what was. Where a path lies tells how far
its exchange has come, so nothing needs to be written down between the steps.
"""

from __future__ import annotations

from pathlib import Path

from aisandbox.instance import files
from aisandbox.instance.keep.upgrade import tree
from aisandbox.instance.keep.upgrade.state import Item, State, Upgrades

ROOT = "root"


def apply(upgrades: Upgrades, state: State) -> None:
    """Put the new release in place. Call it in the phase `switching`."""
    if state.operation == "rollback" and not upgrades.next.exists():
        tree.move(upgrades.previous, upgrades.next)
    for item in _order(state.items):
        live, new, old = _places(upgrades, item)
        if item.tree:
            if item.old:
                tree.move(live, old)
            if item.new:
                tree.move(new, live)
        else:
            if item.old:
                tree.copy(live, old)
            if item.new:
                tree.copy(new, live)
            else:
                tree.remove(live)


def undo(upgrades: Upgrades, state: State) -> None:
    """Put the former release back, however far `apply` or another `undo` has come. Call it in the phase `undoing`."""
    for item in reversed(_order(state.items)):
        live, new, old = _places(upgrades, item)
        if item.tree:
            _undo_tree(item, live, new, old)
        else:
            tree.remove(tree.partial_of(live))
            if not item.old:
                tree.remove(live)
            elif tree.exists(old):
                tree.copy(old, live)


def _undo_tree(item: Item, live: Path, new: Path, old: Path) -> None:
    # A copy that was broken off.
    tree.remove(tree.partial_of(new))
    if tree.exists(old):
        if item.new and not tree.exists(new) and tree.exists(live):
            tree.move(live, new)
        # What is left of the former one while it was copied away: the copy is whole.
        tree.remove(live)
        tree.move(old, live)
    elif item.new and not item.old and not tree.exists(new) and tree.exists(live):
        tree.move(live, new)


def clear_undone(upgrades: Upgrades, state: State) -> None:
    """Remove what an upgrade that was undone has left; what a rollback would have led to stays. Can be repeated."""
    if state.operation == "rollback":
        if upgrades.next.exists() and not upgrades.previous.exists():
            tree.move(upgrades.next, upgrades.previous)
    else:
        tree.remove(upgrades.next)
    tree.remove(upgrades.old)


def commit(upgrades: Upgrades, state: State) -> None:
    """Keep the former release for a rollback, in place of the one before. Call it in the phase `committing`."""
    kept = {
        "version": state.from_version,
        "ports": state.ports,
        "items": [vars(item.reversed) for item in state.items],
        "units": list(state.units),
        "database": state.backup,
        "release": state.former_release,
        "chat_changes": state.chat_changes,
    }
    if tree.exists(upgrades.old):
        # A record that is incomplete would lead back to a mixture: it is there before the folder gets its name.
        files.write_json(upgrades.old / upgrades.previous_file.name, kept)
        tree.remove(upgrades.previous)
        tree.move(upgrades.old, upgrades.previous)
    if state.release is None:
        files.remove(upgrades.installed_file)
    else:
        files.write(upgrades.installed_file, state.release)
    tree.remove(upgrades.next)
    tree.remove(upgrades.download)


def _order(items: tuple[Item, ...]) -> list[Item]:
    """Folders, then files; what goes for good last."""
    return sorted(items, key=lambda item: (not item.new, not item.tree, item.path))


def _places(upgrades: Upgrades, item: Item) -> tuple[Path, Path, Path]:
    return upgrades.root / item.path, upgrades.next / ROOT / item.path, upgrades.old / ROOT / item.path
