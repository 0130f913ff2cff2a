"""What single platforms ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aisandbox.check.model import Finding, NotCheckedError, Subject, check
from aisandbox.check.system import numbers

AGENT = "2.2.41"


@check(
    "Azure's agent is there",
    why="Azure takes no image without its agent, 2.2.41 or later.",
    fix="apt-get install waagent",
    sources=("Azure 2",),
    targets=("azure",),
)
def azure_agent(subject: Subject) -> Iterator[Finding]:
    version = subject.installed("waagent") or subject.installed("walinuxagent")
    if not version:
        yield Finding("/var/lib/dpkg/status", "waagent is not installed")
    elif numbers(version) < numbers(AGENT):
        yield Finding("/var/lib/dpkg/status", f"waagent {version} is older than {AGENT}")


@check(
    "Azure's agent updates itself",
    why="Azure's test asks for it.",
    fix="AutoUpdate.Enabled=y in /etc/waagent.conf",
    sources=("Azure 10",),
    targets=("azure",),
)
def azure_agent_updates(subject: Subject) -> Iterator[Finding]:
    for line in subject.tree.lines("/etc/waagent.conf"):
        if re.match(r"(?i)AutoUpdate\.(Enabled|UpdateToLatestVersion)\s*=\s*n", line):
            yield Finding("/etc/waagent.conf", line)


@check(
    "The kernel speaks to the serial console",
    why="Without console=ttyS0 and earlyprintk=ttyS0 a machine on Azure that does not come up cannot be looked into.",
    fix="GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub",
    sources=("Azure 3",),
    targets=("azure",),
)
def azure_console(subject: Subject) -> Iterator[Finding]:
    words = _kernel_options(subject)
    for option in ("console=ttyS0", "earlyprintk=ttyS0"):
        if not any(re.match(re.escape(option) + r"(,|$)", word) for word in words):
            yield Finding("/boot/grub/grub.cfg", f"{option} is missing")


@check(
    "The kernel waits for a late root disk",
    why="Azure recommends rootdelay=300.",
    fix="GRUB_CMDLINE_LINUX in /etc/default/grub, then update-grub",
    sources=("Azure 3",),
    targets=("azure",),
    severity="warning",
)
def azure_root_delay(subject: Subject) -> Iterator[Finding]:
    if not any(word.startswith("rootdelay=") for word in _kernel_options(subject)):
        yield Finding("/boot/grub/grub.cfg", "rootdelay=300 is missing")


def _kernel_options(subject: Subject) -> list[str]:
    menu = subject.tree.text("/boot/grub/grub.cfg")
    if menu is None:
        raise NotCheckedError("a root file system alone has no boot menu; check the disk image")
    return [word for line in menu.splitlines() if line.split()[:1] == ["linux"] for word in line.split()]
