"""The documents of an image: SBOMs and licences beside its files, and what its manifest says of packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aisandbox.builder.progress import Phases
from aisandbox.builder.supply import collect, licence_report, source
from aisandbox.builder.supply.document import Document
from aisandbox.builder.supply.inventory import Inventory, Kind
from aisandbox.builder.supply.source import Source

KERNEL = re.compile(r"linux-image-(\d.*)")
DRIVER, CUDA = "nvidia-driver-cuda", "nvidia-cuda-runtime"
"""Packages, Debian's and Python's, whose versions are the driver's and that of vLLM's CUDA."""


def write(document: Document, folder: Path, prefix: str = "") -> list[Path]:
    """Write both SBOMs and the licence report to a folder; returns their paths.

    Args:
        prefix: goes before every name.

    Raises:
        BuildError: a licence is in that the policy refuses; nothing is written.
    """
    # Their libraries take longer to import than most commands take to run.
    from aisandbox.builder.supply import cyclonedx_json, spdx_json

    report = licence_report.report(document.inventory, document.subject)
    report.check()
    contents = {
        spdx_json.NAME: spdx_json.text(document),
        cyclonedx_json.NAME: cyclonedx_json.text(document),
        **dict(zip(licence_report.NAMES, (report.to_markdown(), report.to_json()), strict=True)),
    }
    for name, content in contents.items():
        (folder / f"{prefix}{name}").write_text(content)
    return [folder / f"{prefix}{name}" for name in contents]


def of_layers(
    lower: str, subject: str, folder: Path, code: Source, phases: Phases, prefix: str = "", *, container: bool = False
) -> Inventory:
    """Write the documents of stacked layers; returns their inventory.

    Args:
        lower: their directories as for an overlay, uppermost first.
        subject: what is made of them, such as `aisandbox-0.1.0-cpu`.

    Raises:
        BuildError: they could not be read, or a licence is refused.
    """
    with phases.phase("list what is inside", collect.EXPECTED_SECONDS):
        inventory = collect.of_layers(lower, code.commit)
        write(Document(inventory, subject, source.created(code), container), folder, prefix)
    return inventory


def write_for_container(lower: str, subject: str, archive: Path, phases: Phases) -> None:
    """Write the documents of a container's image beside its archive, whose name without suffix goes before theirs.

    Raises:
        BuildError: the layers could not be read, or a licence is refused.
    """
    of_layers(lower, subject, archive.parent, source.read(), phases, f"{archive.stem}.", container=True)


def packages(inventory: Inventory) -> dict[str, Any]:
    """Names and versions as an image's manifest lists them; several versions of one name are a list."""
    python: dict[str, dict[str, str]] = {}
    for package in inventory.of(Kind.python):
        for place in package.places:
            python.setdefault(place, {})[package.name] = package.version
    npm: dict[str, list[str]] = {}
    for package in inventory.of(Kind.npm):
        npm.setdefault(package.name, []).append(package.version)
    return {
        "debian": {package.name: package.version for package in inventory.of(Kind.debian)},
        "python": dict(sorted(python.items())),
        "npm": npm,
    }


def platform(inventory: Inventory) -> dict[str, str | None]:
    """Kernel, NVIDIA's driver and vLLM's CUDA, as an image's manifest lists them; None where it has none."""
    debian = {package.name: package.version for package in inventory.of(Kind.debian)}
    kernels = [found[1] for name in debian if (found := KERNEL.fullmatch(name))]
    driver = debian.get(DRIVER)
    return {
        "kernel": max(
            kernels, key=lambda release: [int(number) for number in re.findall(r"\d+", release)], default=None
        ),
        "driver": driver and driver.rpartition("-")[0],
        "cuda": next((package.version for package in inventory.of(Kind.python) if package.name == CUDA), None),
    }
