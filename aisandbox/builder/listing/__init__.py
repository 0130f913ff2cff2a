"""What marketplaces print and ask for, made from the manifest: a folder of files for every target, checked.

The platforms' own files are made in `platforms`, those that every target has in `common`; `limits` says what each
platform asks of texts and names, and `lint` checks the written files. The same manifest gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from aisandbox.builder.errors import BuildError
from aisandbox.builder.listing import common
from aisandbox.builder.listing.files import Platform
from aisandbox.builder.listing.lint import Finding, Report, lint
from aisandbox.builder.listing.platforms import (
    aws,
    azure,
    container,
    digitalocean,
    disks,
    gcp,
    hetzner,
    linode,
    openstack,
    vultr,
)
from aisandbox.manifest import REPOSITORY, Manifest

__all__ = ["FOLDER", "Finding", "Report", "files", "lint", "require_clean", "selected", "write"]

FOLDER = REPOSITORY / "build" / "listing"
PLATFORMS: dict[str, Platform] = {
    "aws": aws.files,
    "azure": azure.files,
    "container": container.files,
    "digitalocean": digitalocean.files,
    "gcp": gcp.files,
    "hetzner": hetzner.files,
    "linode": linode.files,
    "openstack": openstack.files,
    "vultr": vultr.files,
}
"""Targets with files of their own; the others are disk images."""


def files(manifest: Manifest, target: str) -> dict[str, str]:
    """Every file of a target's listing, by its name in the target's folder.

    Raises:
        BuildError: there is no such target, or the locks do not pin what the listing names.
    """
    selected(manifest, target)
    found = {**PLATFORMS.get(target, disks.files)(manifest, target), **common.files(manifest, target)}
    return {
        **{name: file.text for name, file in found.items()},
        "README.md": common.index(manifest, target, found).text,
    }


def selected(manifest: Manifest, target: str | None) -> tuple[str, ...]:
    """The target of that name, or all of them without one.

    Raises:
        BuildError: there is no such target.
    """
    if target is None:
        return tuple(manifest.targets)
    if target not in manifest.targets:
        raise BuildError(f"there is no target {target!r}", f"make listing TARGET={'|'.join(manifest.targets)}")
    return (target,)


def write(manifest: Manifest, out: Path, targets: Iterable[str]) -> list[Path]:
    """Write the files of the targets, each into a folder of its name below `out`, which then holds nothing else."""
    written = []
    for target in targets:
        made = files(manifest, target)
        shutil.rmtree(out / target, ignore_errors=True)
        for name, text in made.items():
            path = out / target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
            written.append(path)
    return written


def require_clean(report: Report, source: Path) -> None:
    """Refuse a listing that breaks a rule.

    Raises:
        BuildError: with every finding, and the line of the manifest `source` where it comes from.
    """
    if report.findings:
        told = "\n".join(f"  {finding.told(source)}" for finding in report.findings)
        raise BuildError(f"{len(report.findings)} rules are broken:\n{told}", f"correct {source}, then: make listing")
