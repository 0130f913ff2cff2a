"""Packer's template for a target: its source and the build that all share, in one file."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2

from aisandbox.builder import versions
from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets.catalogue import find
from aisandbox.manifest import REPOSITORY

PACKER = REPOSITORY / "packer"
BUILD = "build.pkr.hcl.j2"
# Root need not have sudo before the bake has brought it.
AS_ROOT = '{{ .Vars }} $([ \\"$(id -u)\\" = 0 ] || echo sudo -n -E) sh -e {{ .Path }}'


def source(target: str) -> Path:
    """File with the variables and the source block of a target."""
    return PACKER / "sources" / f"{target}.pkr.hcl"


def text(target: str) -> str:
    """The template of a target.

    Raises:
        BuildError: there is no such target, or Packer bakes nothing for it.
    """
    entry = find(target)
    if not source(target).exists():
        raise BuildError(f"{entry.title} is not baked by Packer", "make image")
    # HCL and Packer have braces of their own.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PACKER),
        variable_start_string="[[",
        variable_end_string="]]",
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - HCL, from our own files and names
    )
    build = environment.get_template(BUILD).render(
        target=target,
        builder=entry.builder,
        packer=versions.oldest_packer(),
        repository=str(REPOSITORY),
        as_root=AS_ROOT,
    )
    return f"{source(target).read_text()}\n{build}"


def render(target: str, folder: Path) -> Path:
    """Write the template of a target to `folder`; returns its path.

    Raises:
        BuildError: there is no such target, or Packer bakes nothing for it.
    """
    path = folder / f"{target}.pkr.hcl"
    path.write_text(text(target))
    return path


def declared(hcl: str) -> set[str]:
    """Names of the variables that a template declares."""
    return set(re.findall(r'^variable "(\w+)"', hcl, re.MULTILINE))


def default(hcl: str, name: str) -> str:
    """Default of a variable of the template that is a plain string."""
    found = re.search(rf'^variable "{name}" {{[^}}]*?default\s*=\s*"([^"]*)"', hcl, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""
