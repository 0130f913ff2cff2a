"""The files of a listing, and the templates that some of them are rendered from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import yaml

from aisandbox.builder.listing import names, ports, tables, texts
from aisandbox.builder.listing.software import software
from aisandbox.manifest import REPOSITORY, Manifest, Option

TEMPLATES = REPOSITORY / "templates" / "listing"


@dataclass(frozen=True)
class File:
    """One file of a listing: its text, and what one does with it."""

    text: str
    use: str


Files = dict[str, File]
"""By name, relative to the target's folder, in the order in which one needs them."""
Platform = Callable[[Manifest, str], Files]
"""Makes the files that a target has of its own; the second argument is the target's name."""


def rendered(template: str, use: str, manifest: Manifest, target: str, **context: Any) -> File:
    """The file that a template below `templates/listing` makes."""
    facts = {
        "manifest": manifest,
        "product": manifest.product,
        "listing": manifest.listing,
        "options": ports.options(manifest, target),
        "target": manifest.targets[target],
        "target_name": target,
        "doors": ports.doors(manifest, target),
        "contained": ports.contained(manifest, target),
        "services": ports.services(manifest),
        "software": software(manifest),
        "names": names,
        "tables": tables,
        "texts": texts,
    }
    return File(_templates().get_template(template).render({**facts, **context}), use)


def as_json(value: object, use: str) -> File:
    """JSON, indented; other alphabets stay as they are."""
    return File(json.dumps(value, indent=2, ensure_ascii=False) + "\n", use)


def as_yaml(value: object, use: str, comment: str = "") -> File:
    """YAML in the order given; texts of several lines stay readable."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)
    return File("".join(f"# {line}\n" for line in comment.splitlines()) + text, use)


def portable(pattern: str) -> str:
    """The pattern without look-aheads, which Terraform's engine does not know: it then accepts somewhat more."""
    return re.sub(r"\(\?[=!](?:[^()\\]|\\.)*\)", "", pattern)


def optional(option: Option) -> str:
    """A pattern for a form's text field: what may be given for the option, or nothing.

    It is for catching slips early. The instance checks again, by all of its rules, lengths among them: Terraform's
    engine counts no further than 1000.
    """
    match option.type:
        case "integer":
            return "^[0-9]{0,9}$"
        case "cidrs":
            return "^[0-9A-Fa-f:./, ]*$"
        case "names":
            return "^[A-Za-z0-9._*, -]*$"
        case "arguments":
            return "^[ -~]*$"
    assert option.pattern
    return f"^$|{option.pattern}"


def mismatch(option: Option) -> str:
    """What a form says about a value that does not fit, in one sentence or two."""
    example = "" if option.example is None else f" Example: {option.example}."
    return f"This does not fit: {option.label}.{example}"


def choices(option: Option) -> tuple[str, ...]:
    """What a form offers for an option of type choice; the empty one leaves it to the appliance."""
    return option.choices if option.default is not None else ("", *option.choices)


def hcl(value: object) -> str:
    """The value as a literal of Terraform's language."""
    return json.dumps(value, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - scripts, settings and Markdown, not HTML
    )
    environment.filters |= {
        "choices": choices,
        "hcl": hcl,
        "mismatch": mismatch,
        "optional": optional,
        "portable": portable,
    }
    return environment


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
