"""Owners and modes of files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from aisandbox.check.model import Finding, Subject, check

PASSING = ("/proc/", "/sys/", "/dev/", "/run/")
"""Made anew at every boot."""
PRIVILEGED = frozenset(
    {
        "/usr/bin/chage", "/usr/bin/chfn", "/usr/bin/chsh", "/usr/bin/crontab", "/usr/bin/expiry",
        "/usr/bin/fusermount", "/usr/bin/fusermount3", "/usr/bin/gpasswd", "/usr/bin/mount", "/usr/bin/newgrp",
        "/usr/bin/passwd", "/usr/bin/pkexec", "/usr/bin/ssh-agent", "/usr/bin/su", "/usr/bin/sudo", "/usr/bin/umount",
        "/usr/lib/chromium/chrome-sandbox", "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
        "/usr/lib/openssh/ssh-keysign", "/usr/lib/polkit-1/polkit-agent-helper-1", "/usr/lib/snapd/snap-confine",
        "/usr/lib/x86_64-linux-gnu/utempter/utempter", "/usr/sbin/pam_extrausers_chkpwd", "/usr/sbin/unix_chkpwd",
    }
)  # fmt: skip
"""Programs of Debian and Ubuntu that run with rights of root or of a group."""
CAPABLE = frozenset({"/usr/bin/ping", "/usr/bin/mtr-packet"})
BOTH = ("image", "instance")


@check(
    "Only root can change what everybody runs",
    why="A file or folder that everybody may write lets any service become any other.",
    fix="chmod o-w; folders for everybody's files are sticky (chmod +t)",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def world_writable(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        shared = entry.is_folder and entry.mode & stat.S_ISVTX
        writable = entry.mode & stat.S_IWOTH and (entry.is_file or entry.is_folder)
        if writable and not shared and not entry.path.startswith(PASSING):
            yield Finding(entry.path, stat.filemode(entry.mode))


@check(
    "Programs with rights of their own are the known ones",
    why="Each is a way to become root when it has a fault; one that is not Debian's may be a door that was left open.",
    fix="chmod u-s,g-s; or name it in aisandbox/check/files.py",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def privileged_programs(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        if entry.is_file and entry.mode & (stat.S_ISUID | stat.S_ISGID) and entry.path not in PRIVILEGED:
            yield Finding(entry.path, stat.filemode(entry.mode))


@check(
    "Programs with capabilities are the known ones",
    why="A capability is a part of root's rights that no list of setuid programs shows.",
    fix="setcap -r",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def capabilities(subject: Subject) -> Iterator[Finding]:
    root = subject.tree.root
    for entry in subject.tree.entries:
        if entry.is_file and entry.mode & 0o111 and entry.path not in CAPABLE:
            try:
                os.getxattr(root / entry.path[1:], "security.capability", follow_symlinks=False)
            except OSError:  # ENODATA, mostly; ENOTSUP where the file system knows none
                continue
            yield Finding(entry.path)


@check(
    "Every file has an owner",
    why="The next account that is made gets the number, and the files with it.",
    fix="chown root:root",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def unowned_files(subject: Subject) -> Iterator[Finding]:
    users, groups = {account.uid for account in subject.accounts}, subject.groups
    for entry in subject.tree.entries:
        if (entry.uid not in users or entry.gid not in groups) and not entry.path.startswith(PASSING):
            yield Finding(entry.path, f"{entry.uid}:{entry.gid}")


@check(
    "No devices outside /dev",
    why="A device file that everybody may open gives the disk to everybody.",
    fix="rm it",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def device_files(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        if (stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)) and not entry.path.startswith(PASSING):
            yield Finding(entry.path)


@check(
    "Names can be read, and folders listed",
    why="A name with control characters hides what it names; what cannot be listed could not be checked.",
    fix="rm it",
    sources=("stricter than the vendors",),
)
def names(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        name = entry.path.rpartition("/")[2]
        if any(ord(character) < 32 or ord(character) == 127 for character in name) or not name.strip():
            yield Finding(entry.path, "has characters that cannot be seen")
    for path in subject.tree.unreadable:
        yield Finding(path, "cannot be listed")


@check(
    "The product can be changed by root only",
    why="Services run from there: whoever may change it is every service.",
    fix="chown -R root:root and chmod -R go-w the folder of the product",
    sources=("stricter than the vendors",),
    stages=BOTH,
)
def product_files(subject: Subject) -> Iterator[Finding]:
    for entry in subject.tree.entries:
        inside = entry.path.startswith(subject.settings.opt + "/") and not entry.is_link
        if inside and (entry.uid or entry.gid or entry.mode & stat.S_IWGRP):
            yield Finding(entry.path, f"{stat.filemode(entry.mode)} {entry.uid}:{entry.gid}")
