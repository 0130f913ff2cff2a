"""The tables in the documents that are made from the manifest: `python -m aisandbox.build.documents` renews them.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from aisandbox import manifest as manifests
from aisandbox.instance.options.arguments import ALLOWED
from aisandbox.manifest import REPOSITORY, Manifest, Option

DOCUMENTS = (REPOSITORY / "README.md", REPOSITORY / "docs" / "options.md", REPOSITORY / "docs" / "models.md")
BLOCK = re.compile(r"(<!-- table (?P<name>\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def refreshed(text: str, manifest: Manifest) -> str:
    """The document with every table as the manifest has it."""
    return BLOCK.sub(lambda match: match[1] + TABLES[match["name"]](manifest), text)


def main() -> None:
    """Renew the tables in every document."""
    manifest = manifests.load()
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        new = refreshed(text, manifest)
        if new != text:
            document.write_text(new, encoding="utf-8")
            print(f"Renewed {document.relative_to(REPOSITORY)}")


def _short(manifest: Manifest) -> str:
    rows = ((_code(option.key), option.label, _code(option.example)) for option in manifest.options)
    return _table(("option", "what", "example"), rows)


def _full(manifest: Manifest) -> str:
    rows = (
        (_code(option.key), option.help, _rule(option), _code(option.default), _code(option.example))
        for option in manifest.options
    )
    return _table(("option", "what", "rule", "default", "example"), rows)


def _names(manifest: Manifest) -> str:
    return _table(
        ("option", "StackScript", "Vultr variable", "GCP attribute", "AWS tag", "kernel command line"),
        ((_code(option.key), *map(_code, _names_of(option))) for option in manifest.options),
    )


def _names_of(option: Option) -> Iterator[str]:
    masked = option.type == "secret" and "password" not in option.key
    yield f"{option.key}_password" if masked else option.key
    yield option.key
    yield f"aisandbox-{option.key}"
    yield f"aisandbox:{option.key}"
    yield f"aisandbox.{option.key}"


def _arguments(_manifest: Manifest) -> str:
    rows = (
        (_code(argument.name) + (f", {_code(argument.negation)}" if argument.negatable else ""), argument.rule)
        for argument in ALLOWED
    )
    return _table(("argument", "value"), rows)


def _models(manifest: Manifest) -> str:
    rows = (
        (
            _code(model.id),
            f"{model.gpu_memory_gib} GiB" if model.gpu_memory_gib else "no GPU",
            ".".join(map(str, model.capability)) if model.gpu_memory_gib else "",
            model.license,
            _code(model.revision and model.revision[:12]),
        )
        for model in manifest.models
    )
    return _table(("model", "memory", "capability", "licence", "commit"), rows)


TABLES: dict[str, Callable[[Manifest], str]] = {
    "short": _short,
    "options": _full,
    "names": _names,
    "arguments": _arguments,
    "models": _models,
}


def _rule(option: Option) -> str:
    match option.type:
        case "choice":
            return "one of " + ", ".join(map(_code, option.choices))
        case "integer":
            return f"whole number from {option.minimum} to {option.maximum}"
        case "cidrs":
            return "networks and addresses, IPv4 and IPv6, separated by commas"
        case "arguments":
            return "arguments of the list below"
    return _code(option.pattern)


def _code(value: object) -> str:
    return "" if value is None else f"`{value}`".replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines)


if __name__ == "__main__":
    main()
