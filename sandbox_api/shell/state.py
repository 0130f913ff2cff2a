"""What a session carries from one command to the next: folder, variables, functions, options, aliases, umask.

Each command is a process of its own, so that one which hangs, is killed or calls `exit` does not take the session
along. A command that may change the state is wrapped: it reads the state from a file and, when it ends, writes the
new one to another. The process tells when it has ended, never its output.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LARGEST_STATE = 2**20
"""Bytes; a command that leaves more behind does not change the session."""
LONGEST_ARGUMENT = 100_000
"""Bytes of a command that are passed as an argument; Linux allows 128 KiB for one."""

# Words and signs without which a command cannot change what a session carries.
_CHANGES = re.compile(
    r"(?:^|\W)(?:cd|pushd|popd|export|declare|typeset|readonly|unset|set|shopt|alias|unalias|source|eval|read|readarray"
    r"|mapfile|printf\s+-v|getopts|let|for|select|function|umask|enable|hash|coproc)(?:\W|$)"
    r"|=|\(\s*\)|\(\(|(?:^|[\s;&|{(])\.\s|\\"
)
_DECLARATION = re.compile(r"(?:declare -(\S+)|(export)) (\w+)")
_OWN = re.compile(
    r"BASH(?!_ENV$)\w*|DIRSTACK|EPOCH\w+|EUID|FUNCNAME|GROUPS|HISTCMD|HOSTTYPE|LINENO|MACHTYPE|OPTERR|OPTIND|OSTYPE"
    r"|PIPESTATUS|PPID|PS4|PWD|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|UID|COMP_WORDBREAKS|_|__sandbox\w*"
)
"""Variables that belong to each shell and not to the session."""

# On one line: the shell numbers the command's lines in its messages from where it stands.
_SAVE_BASH = (
    "__sandbox_save() { local __sandbox_code=$?; { printf '%s\\0' \"$PWD\"; set +o; set +eu; shopt -p; printf '\\0'; "
    "declare -p; printf '\\0'; unset -f __sandbox_save; declare -f; printf '\\0'; declare -F; "
    "printf '\\0'; alias -p; umask -p; "
    "} >NEXT 2>/dev/null; return $__sandbox_code; }; "
    "trap '{ declare -F __sandbox_save >/dev/null && __sandbox_save; } 2>/dev/null' EXIT; "
)
_SAVE_SH = (
    "__sandbox_save() { __sandbox_code=$?; { set +eu; printf '%s\\0' \"$PWD\"; printf '\\0'; export -p; "
    "printf '\\0\\0\\0'; } >NEXT 2>/dev/null; return $__sandbox_code; }; "
    "trap '{ __sandbox_save; } 2>/dev/null' EXIT; "
)


def may_change(command: str) -> bool:
    """Whether the command could change the folder or variables. Rather once too often: it only costs a millisecond."""
    return _CHANGES.search(command) is not None


Key = tuple[str, str]
"""Kind and name of an item."""
Items = Mapping[Key, str]
"""Shell statements that set the items. `exported` has none: its items are the names that come with the environment."""
# The options come last: what precedes them must work whatever they are.
KINDS = ("exported", "variable", "function", "alias", "option")


def _variables(declarations: str, given: Collection[str], before: Items | None) -> dict[Key, str]:
    items: dict[Key, str] = {}
    exported = {"PWD", "SHLVL", "OLDPWD"}
    for text in re.split(r"(?m)^(?=declare -|export \w)", declarations):
        match = _DECLARATION.match(text)
        if not match or _OWN.fullmatch(match[3]) or match[3] in given:
            continue
        items["variable", match[3]] = text.rstrip("\n")
        if match[2] or "x" in match[1]:
            exported.add(match[3])
    for name in given:
        if before is not None and ("variable", name) in before:
            items["variable", name] = before["variable", name]
        if before is None or ("exported", name) in before:
            exported.add(name)
    return {("exported", name): "" for name in sorted(exported)} | items


def _functions(definitions: str, listing: str) -> dict[Key, str]:
    """Each with its name, which `declare -F` has listed in the order of their definitions."""
    listed = [line.split(" ", 2)[1:] for line in listing.splitlines()]
    starts, position = [], 0
    for _, name in listed:
        found = f"\n{definitions}".find(f"\n{name} () \n", position)
        if found < 0:
            return {("function", ""): definitions}
        starts.append(found)
        position = found + 1
    return {
        ("function", name): definitions[start:end].removesuffix("\n")
        + (f"\ndeclare -fx {name}" if "x" in attributes else "")
        for (attributes, name), start, end in zip(listed, starts, [*starts, len(definitions)][1:], strict=True)
    }


def read_dump(dump: bytes, given: Collection[str] = (), before: Items | None = None) -> tuple[Path, Items] | None:
    """Folder and items out of what the wrapper wrote; None when it is incomplete, too large, or written over.

    Args:
        given: variables that were set for this one command; the session keeps its own values of them.
        before: the items at the command's start.
    """
    parts = dump.decode(errors="surrogateescape").split("\0")
    if len(parts) != 6 or len(dump) > LARGEST_STATE:
        return None
    directory, options, declarations, definitions, listing, rest = parts
    try:
        items = _variables(declarations, given, before) | _functions(definitions, listing)
        for text in re.split(r"(?m)^(?=alias |umask )", rest):
            items["alias", text.partition("=")[0] if text.startswith("alias") else "umask"] = text.removesuffix("\n")
        for line in options.splitlines():
            command, _, name = line.split(" ", 2)
            items["option", f"{command} {name}"] = line
    except ValueError:
        return None
    return Path(directory), items


@dataclass(frozen=True)
class Start:
    """The state when a command started. `number` counts the session's commands."""

    number: int
    directory: Path
    items: Items | None


@dataclass
class State:
    """`items` is None before any command has left some; `defaults` are those of a fresh shell."""

    directory: Path
    defaults: Items
    items: Items | None = None
    _changed_by: dict[Key, int] = field(default_factory=dict)
    _moved_by: int = 0

    @property
    def traces(self) -> bool:
        return self.items is not None and self.items.get(("option", "set xtrace")) == "set -o xtrace"

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Variables to start a shell with: without those that the session has unset."""
        if self.items is None:
            return dict(base)
        return {
            name: value for name, value in base.items() if ("exported", name) in self.items or not name.isidentifier()
        }

    def script(self, without: Collection[str]) -> str | None:
        """Statements that bring the state back, but for these variables; None when there is nothing to bring back."""
        if self.items is None:
            return None
        return "\n".join(text for (kind, name), text in self.items.items() if kind != "variable" or name not in without)

    def start(self, number: int) -> Start:
        return Start(number, self.directory, self.items)

    def move(self, directory: Path, number: int) -> None:
        """Change the folder, unless a command that was started later has changed it already."""
        if directory != self.directory and self._moved_by <= number:
            self.directory, self._moved_by = directory, number

    def follow(self, dump: bytes, given: Collection[str], start: Start) -> None:
        """Take over what a command has changed.

        Commands may run side by side. Each changes only what it has set itself; of what several have set, the one that
        was started last decides, whichever ends first.

        Args:
            dump: what the wrapper wrote.
            given: variables that were set for this one command; the session keeps its own values of them.
        """
        left = read_dump(dump, given, start.items)
        if left is None:
            return
        directory, items = left
        before = self.defaults if start.items is None else start.items
        changed = {
            key for key in before.keys() | items.keys()
            if before.get(key) != items.get(key) and self._changed_by.get(key, 0) <= start.number
            and not (key[0] in ("exported", "variable") and key[1] in given)
        }  # fmt: skip
        if self.items is start.items or self.items is None:
            self.items = items
        else:
            kept = {key: text for key, text in self.items.items() if key not in changed}
            merged = kept | {key: items[key] for key in changed if key in items}
            self.items = dict(sorted(merged.items(), key=lambda item: KINDS.index(item[0][0])))
        self._changed_by |= dict.fromkeys(changed, start.number)
        if directory != start.directory:
            self.move(directory, start.number)

    def settle(self) -> None:
        """No command runs: what was changed by which one matters no more."""
        self._changed_by.clear()


def plain(command: str, overflow: Path) -> str:
    """The command as the shell's argument, by way of a file when it is too long for one."""
    if len(command) <= LONGEST_ARGUMENT // 4 or len(command.encode(errors="surrogateescape")) <= LONGEST_ARGUMENT:
        return command
    overflow.write_text(command, errors="surrogateescape", newline="")
    return f'eval "$(cat {shlex.quote(overflow.as_posix())})"'


def _around(bash: bool, before: Path | None, after: Path) -> str:
    save = (_SAVE_BASH if bash else _SAVE_SH).replace("NEXT", shlex.quote(after.as_posix()))
    load = f". {shlex.quote(before.as_posix())}; " if before else ""
    return f"{{ {load}{save}}} 2>/dev/null"  # so that `set -x` of the session does not show it


def wrapped(command: str, bash: bool, before: Path | None, after: Path) -> str:
    """The command with the session's state around it.

    Args:
        bash: the shell is bash; of another, folder and exported variables are carried.
        before: file with the statements of `State.script`.
        after: where the new state is written.
    """
    # The last part is for commands that set an EXIT trap of their own.
    return f"{_around(bash, before, after)}; eval {shlex.quote(command)}\n{{ __sandbox_save; }} 2>/dev/null"


def can_start_from_file(command: str, variables: Mapping[bytes, bytes]) -> bool:
    """Whether bash can run this command itself, with the state loaded by `startup`, and still save the state."""
    return "trap" not in command and not {b"BASH_ENV", b"POSIXLY_CORRECT"} & variables.keys()


def startup(before: Path, after: Path) -> str:
    """What bash reads from its $BASH_ENV, in place of `wrapped`, whose `eval` would be traced."""
    return f"{{ unset -v BASH_ENV; }} 2>/dev/null; {_around(True, before, after)}"


def startup_name(file: Path) -> bytes:
    """$BASH_ENV for this file. The shell expands it."""
    return os.fsencode(re.sub(r'([$`"\\])', r"\\\1", str(file)))
