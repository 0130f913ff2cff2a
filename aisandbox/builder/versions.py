"""The versions of `ansible/versions.yml`: Packer's, and those of the plugins that `packer init` installs."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2
import yaml

from aisandbox.manifest import REPOSITORY

FILE = REPOSITORY / "ansible" / "versions.yml"
PLUGINS = REPOSITORY / "packer" / "plugins" / "plugins.pkr.hcl"
PLUGINS_TEMPLATE = jinja2.Template(
    """\
# Packer >= 1.7 brings no builders of its own: `packer init packer/plugins` installs these. Apart from the templates,
# because Packer 1.6 does not know `required_plugins` (and has most of the builders built in).
# Made from ansible/versions.yml by `make docs`.
packer {
  required_version = ">= {{ recommended }}"
  required_plugins {
{% for name, plugin in plugins.items() %}
    {{ name }} = {
      source  = "{{ plugin.source }}"
      version = "= {{ plugin.version }}"
    }
{% endfor %}
  }
}
""",
    trim_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - HCL, from our own file
)


@cache
def load() -> dict[str, Any]:
    """All of the file."""
    versions: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return versions


def oldest_packer() -> str:
    """The oldest Packer that the tests run."""
    return str(load()["packer"]["oldest"])


def recommended_packer() -> str:
    """The oldest Packer that a vendor's machine should have."""
    return str(load()["packer"]["recommended"])


def plugins() -> str:
    """What `packer init` reads: every plugin in its version."""
    text: str = PLUGINS_TEMPLATE.render(recommended=recommended_packer(), plugins=load()["packer_plugins"])
    return text


def numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare."""
    return tuple(int(part) for part in version.split("."))
