"""The tables in the documents that are made from the manifest, and in the READMEs of the roles from what these say of
their arguments: `python -m aisandbox.builder.documents` renews them, and the list of Packer's plugins.

A table stands between `<!-- table NAME -->`, or `<!-- table NAME OF -->` with a target or a role, and `<!-- end -->`;
what is around it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from aisandbox import manifest as manifests
from aisandbox.builder import roles, versions
from aisandbox.builder.listing import tables
from aisandbox.builder.listing.limits import LIMITS
from aisandbox.builder.listing.tables import code, table
from aisandbox.check import CHECKS
from aisandbox.instance.choose.options.arguments import ALLOWED
from aisandbox.manifest import REPOSITORY, Manifest, Option

BLOCK = re.compile(r"(<!-- table (?P<name>\w+)(?: (?P<of>\w+))? -->\n).*?(?=<!-- end -->)", re.DOTALL)
DOCUMENTS = tuple(
    path
    for path in (
        REPOSITORY / "README.md",
        *sorted((REPOSITORY / "docs").rglob("*.md")),
        *sorted(roles.ROLES.glob("*/README.md")),
    )
    if BLOCK.search(path.read_text(encoding="utf-8"))
)


def refreshed(text: str, manifest: Manifest) -> str:
    """The document with every table as the manifest has it."""
    return BLOCK.sub(lambda match: match[1] + _made(manifest, match["name"], match["of"]), text)


def _made(manifest: Manifest, name: str, of: str | None) -> str:
    return OF_ONE[name](manifest, of) if of else TABLES[name](manifest)


def main() -> None:
    """Renew the tables in every document."""
    manifest = manifests.load()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        new = refreshed(text, manifest)
        _write(document, text, new)
    _write(versions.PLUGINS, versions.PLUGINS.read_text(encoding="utf-8"), versions.plugins())


def _write(path: Path, text: str, new: str) -> None:
    if new != text:
        path.write_text(new, encoding="utf-8")
        print(f"Renewed {path.relative_to(REPOSITORY)}")


def _short(manifest: Manifest) -> str:
    rows = ((code(option.key), option.label, code(option.example)) for option in manifest.options)
    return table(("option", "what", "example"), rows)


def _full(manifest: Manifest) -> str:
    rows = (
        (code(option.key), option.help, _rule(option), code(option.default), code(option.example))
        for option in manifest.options
    )
    return table(("option", "what", "rule", "default", "example"), rows)


def _arguments(_manifest: Manifest) -> str:
    rows = (
        (code(argument.name) + (f", {code(argument.negation)}" if argument.negatable else ""), argument.rule)
        for argument in ALLOWED
    )
    return table(("argument", "value"), rows)


def _models(manifest: Manifest) -> str:
    rows = (
        (
            code(model.id),
            f"{model.gpu_memory_gib} GiB" if model.gpu_memory_gib else "no GPU",
            ".".join(map(str, model.capability)) if model.gpu_memory_gib else "",
            model.license,
            code(model.revision and model.revision[:12]),
            model.reason,
        )
        for model in manifest.models
    )
    return table(("model", "memory", "capability", "licence", "commit", "why"), rows)


def _checks(_manifest: Manifest) -> str:
    rows = (
        (
            code(check.id),
            check.title,
            check.why,
            f"{check.severity}, {' and '.join(check.stages)}"
            + (f", {' and '.join(check.targets)}" if check.targets else "")
            + (", where it runs" if check.live else ""),
            ", ".join(check.sources),
        )
        for check in CHECKS.values()
    )
    return table(("check", "what holds", "why", "kind", "who asks"), rows)


def _limits(_manifest: Manifest) -> str:
    rows = (
        (
            "all" if limit.target == "*" else limit.target,
            code(limit.file + (f"#{limit.pointer}" if limit.pointer else "")),
            limit.rule.words.replace("|", "\\|"),
            limit.source,
        )
        for limit in LIMITS
    )
    return table(("target", "text", "allowed", "source"), rows)


TABLES: dict[str, Callable[[Manifest], str]] = {
    "short": _short,
    "options": _full,
    "names": tables.naming,
    "ports": tables.doors,
    "targets": tables.targets,
    "arguments": _arguments,
    "models": _models,
    "limits": _limits,
    "checks": _checks,
}
OF_ONE: dict[str, Callable[[Manifest, str], str]] = {
    "plans": tables.plans,
    "role": lambda _manifest, role: roles.variables(role),
}
"""Tables of one target, and of one role."""


def _rule(option: Option) -> str:
    match option.type:
        case "choice":
            return "one of " + ", ".join(map(code, option.choices))
        case "integer":
            return f"whole number from {option.minimum} to {option.maximum}"
        case "cidrs":
            return "networks and addresses, IPv4 and IPv6, separated by commas"
        case "names":
            return "host names, separated by commas; `*.example.com` stands for every name under it"
        case "arguments":
            return "arguments of the list below"
    return code(option.pattern)


if __name__ == "__main__":
    main()
