"""What the Ansible roles take (`meta/argument_specs.yml`, `defaults/main.yml`), and the tables made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aisandbox.builder.listing.tables import code, table
from aisandbox.manifest import REPOSITORY

ROLES = REPOSITORY / "roles"
LONGEST_DEFAULT = 72
"""A longer default stands in `defaults/main.yml` alone."""


def names() -> list[str]:
    """The roles of this repository."""
    return sorted(path.name for path in ROLES.iterdir())


def specification(role: str) -> dict[str, Any]:
    """What a role says of its arguments, by entry point."""
    specification: dict[str, Any] = _read(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]
    return specification


def defaults(role: str) -> dict[str, Any]:
    """The defaults of a role's variables."""
    path = ROLES / role / "defaults" / "main.yml"
    return _read(path) if path.exists() else {}


def written(value: object) -> str:
    """A value as YAML in one line, without the quotes around a text."""
    if isinstance(value, str):
        return value or '""'
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def variables(role: str) -> str:
    """The variables of a role, as a table for its README."""
    options: dict[str, Any] = specification(role)["main"]["options"]
    rows = (
        (code(name), _kind(option), _default(role, name, option), option["description"])
        for name, option in options.items()
    )
    return table(("variable", "type", "default", "meaning"), rows)


def _kind(option: dict[str, Any]) -> str:
    if "choices" in option:
        return " or ".join(map(code, option["choices"]))
    return f"list of {option['elements']}" if option["type"] == "list" else str(option["type"])


def _default(role: str, name: str, option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    if "default" in option:
        return code(written(option["default"]))
    return "see [defaults](defaults/main.yml)" if name in defaults(role) else ""


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
