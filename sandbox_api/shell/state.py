"""What a session carries from one command to the next: folder, variables, functions, options, aliases, umask.

Each command is a process of its own, so that one which hangs, is killed or calls `exit` does not take the session
along. A command that may change the state is wrapped: it reads the state from a file and, when it ends, writes the
new one to another. That it has ended is told by the process, never by its output.
"""

from __future__ import annotations

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
    "declare -p; printf '\\0'; unset -f __sandbox_save; declare -f; declare -Fx; printf '\\0'; alias -p; umask -p; "
    "} >NEXT 2>/dev/null; return $__sandbox_code; }; "
    "trap 'declare -F __sandbox_save >/dev/null && __sandbox_save' EXIT; "
)
_SAVE_SH = (
    "__sandbox_save() { __sandbox_code=$?; { set +eu; printf '%s\\0' \"$PWD\"; printf '\\0'; export -p; "
    "printf '\\0\\0'; } >NEXT 2>/dev/null; return $__sandbox_code; }; trap __sandbox_save EXIT; "
)


def may_change(command: str) -> bool:
    """Whether the command could change the folder or variables. Rather once too often: it only costs a millisecond."""
    return _CHANGES.search(command) is not None


@dataclass
class State:
    """`variables` are shell declarations by name; None before any command has left some."""

    directory: Path
    variables: dict[str, str] | None = None
    exported: set[str] = field(default_factory=set)
    functions: str = ""
    rest: str = ""

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Variables to start a shell with: without those that the session has unset."""
        if self.variables is None:
            return dict(base)
        return {name: value for name, value in base.items() if name in self.exported or not name.isidentifier()}

    def script(self, without: Collection[str]) -> str | None:
        """Statements that bring the state back, but for these variables; None when there is nothing to bring back."""
        if self.variables is None:
            return None
        declarations = [text for name, text in self.variables.items() if name not in without]
        return "\n".join([*declarations, self.functions, self.rest])

    def follow(self, dump: bytes, given: Collection[str]) -> None:
        """Take over what a command left behind.

        Args:
            dump: what the wrapper wrote.
            given: variables that were set for this one command; the session keeps its own values of them.
        """
        parts = dump.decode(errors="surrogateescape").split("\0")
        if len(parts) != 5 or len(dump) > LARGEST_STATE:
            return
        directory, options, declarations, functions, rest = parts
        before, exported_before = self.variables or {}, self.exported
        variables: dict[str, str] = {}
        exported: set[str] = set()
        for text in re.split(r"(?m)^(?=declare -|export \w)", declarations):
            match = _DECLARATION.match(text)
            if not match or _OWN.fullmatch(match[3]) or match[3] in given:
                continue
            variables[match[3]] = text.rstrip("\n")
            if match[2] or "x" in match[1]:
                exported.add(match[3])
        variables |= {name: before[name] for name in given if name in before}
        exported |= {name for name in given if name in exported_before or self.variables is None}
        exported |= {"PWD", "SHLVL", "OLDPWD"}
        self.directory = Path(directory)
        self.variables, self.exported, self.functions, self.rest = variables, exported, functions, rest + options


def plain(command: str, overflow: Path) -> str:
    """The command as the shell's argument, by way of a file when it is too long for one."""
    if len(command) <= LONGEST_ARGUMENT // 4 or len(command.encode(errors="surrogateescape")) <= LONGEST_ARGUMENT:
        return command
    overflow.write_text(command, errors="surrogateescape", newline="")
    return f'eval "$(cat {shlex.quote(overflow.as_posix())})"'


def wrapped(command: str, bash: bool, before: Path | None, after: Path) -> str:
    """The command with the session's state around it.

    Args:
        bash: the shell is bash; of another, folder and exported variables are carried.
        before: file with the statements of `State.script`.
        after: where the new state is written.
    """
    save = (_SAVE_BASH if bash else _SAVE_SH).replace("NEXT", shlex.quote(after.as_posix()))
    load = f"{{ . {shlex.quote(before.as_posix())}; }} 2>/dev/null; " if before else ""
    # The last part is for commands that set an EXIT trap of their own.
    return f"{load}{save}eval {shlex.quote(command)}\n{{ __sandbox_save; }} 2>/dev/null"
