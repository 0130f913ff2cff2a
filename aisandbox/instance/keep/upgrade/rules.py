"""What a release may bring to an instance, and where to. A signature does not lift these rules."""

from __future__ import annotations

import posixpath
import re
import stat

OPT = "opt/aisandbox"
UNITS = "etc/systemd/system"
STATE = f"{OPT}/upgrade"
RELEASES = f"{OPT}/releases"
CURRENT = f"{OPT}/current"
OURS = (STATE, RELEASES, CURRENT)
"""Where upgrades keep their own things; no release brings any."""

FOLDERS = (
    UNITS,
    "etc/cloud/cloud.cfg.d",
    "etc/nginx",
    "etc/ssh/sshd_config.d",
    "etc/sysctl.d",
    "etc/systemd/journald.conf.d",
    "etc/systemd/resolved.conf.d",
    "etc/tmpfiles.d",
    "etc/update-motd.d",
    "usr/local/bin",
)
"""Folders outside `/opt/aisandbox` in which a release may replace single files."""
FILES = ("etc/nftables.conf",)
INTERPRETER = re.compile(r"/usr/bin/python3(\.\d+)?")
NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
FORBIDDEN_MODES = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def clean(path: str) -> bool:
    """Whether a path relative to `/` is written plainly, without detours, control characters or an end in `/`."""
    return (
        bool(path)
        and not path.startswith("/")
        and posixpath.normpath(path) == path
        and path.isprintable()
        and (path != ".." and not path.startswith("../"))
    )


def in_opt(path: str) -> bool:
    """Whether a path relative to `/` lies in `/opt/aisandbox`."""
    return path.startswith(f"{OPT}/")


def may_replace(path: str) -> bool:
    """Whether a release may own this path, relative to `/`: a file or folder as a whole."""
    if not clean(path) or any(path == own or path.startswith(f"{own}/") for own in OURS):
        return False
    if in_opt(path):
        # envs is shared by several components.
        return path == _entry(path) != f"{OPT}/envs"
    return path in FILES or any(path.startswith(f"{folder}/") for folder in FOLDERS)


def refusal_of_mode(mode: int) -> str:
    """Why no file of this mode may be brought; empty when it may."""
    if mode & FORBIDDEN_MODES:
        return "is setuid, setgid or sticky"
    if mode & 0o022:
        return "can be written by others than its owner"
    return ""


def refusal_of_link(path: str, target: str) -> str:
    """Why there may be no symbolic link of that target at that path, relative to `/`; empty when there may."""
    if not target or not target.isprintable():
        return "is a link to an unreadable name"
    if target.startswith("/"):
        plain = posixpath.normpath(target) == target
        unit = path.startswith(f"{UNITS}/") and target.startswith(f"/{UNITS}/")
        if plain and (unit or INTERPRETER.fullmatch(target) or target.startswith(f"/{OPT}/")):
            return ""
        return f"is a link to {target}"
    end = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    # What lies beside it on the instance need not lie beside it in the folder of its release.
    if in_opt(path) and f"{end}/".startswith(f"{_entry(path)}/"):
        return ""
    if posixpath.dirname(end).startswith(UNITS) and path.startswith(f"{UNITS}/"):
        return ""
    return f"is a link to {target}, which leads out of its place"


def _entry(path: str) -> str:
    """The entry of `/opt/aisandbox`, or of its `envs`, that a path belongs to."""
    parts = path.split("/")
    return "/".join(parts[: 4 if path.startswith(f"{OPT}/envs/") else 3])
