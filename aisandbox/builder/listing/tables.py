"""Tables in Markdown, made from the manifest; for listings and for the documents."""

from __future__ import annotations

from collections.abc import Iterable

from aisandbox.builder.errors import BuildError
from aisandbox.builder.listing import names, ports
from aisandbox.manifest import Manifest


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; empty cells hold one blank."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines)


def code(value: object) -> str:
    """The value as code in a table's cell; nothing for None and empty text."""
    return "" if value in (None, "") else f"`{value}`".replace("|", "\\|")


def options(manifest: Manifest, target: str, name: names.Name) -> str:
    """What can be chosen on a target, by its names."""
    rows = (
        (code(name(option)), option.label, option.help, code(option.default), code(option.example))
        for option in ports.options(manifest, target)
    )
    return table(("name", "what", "meaning", "default", "example"), rows)


def naming(manifest: Manifest) -> str:
    """What every option is called on every platform."""
    rows = ((code(option.key), *(code(name(option)) for name in names.COLUMNS.values())) for option in manifest.options)
    return table(("option", *names.COLUMNS), rows)


def plans(manifest: Manifest, target: str) -> str:
    """The plans of a target, with their price where it is known.

    Raises:
        BuildError: there is no such target.
    """
    if target not in manifest.targets:
        raise BuildError(f"there is no target {target!r}", f"use one of {', '.join(manifest.targets)}")
    rows = (
        (
            code(plan.name),
            f"{plan.gpus} x {plan.gpu}" if plan.gpus > 1 else plan.gpu,
            f"{plan.gpus * plan.gpu_memory_gib} GiB" if plan.gpus else "none",
            code(manifest.fitting(plan.gpu_memory_gib, plan.gpus)[0].id),
            "" if plan.usd_per_hour is None else f"{plan.usd_per_hour:.2f}",
            plan.source or "",
        )
        for plan in manifest.targets[target].plans
    )
    return table(("plan", "GPU", "GPU memory", "default model", "USD/hour", "price from"), rows)


def targets(manifest: Manifest) -> str:
    """What images are baked for, and how far that is proved."""
    rows = (
        (
            code(name),
            target.title,
            code(target.builder),
            target.packer if target.builder else "",
            ", ".join(map(code, target.credentials)),
            target.proof,
        )
        for name, target in manifest.targets.items()
    )
    return table(("target", "platform", "builder", "Packer from", "credentials", "proof"), rows)


def doors(manifest: Manifest, target: str | None = None) -> str:
    """The ports that a firewall or security group must let through, and when."""
    rows = (
        (str(door.port), door.name, door.label, "everybody" if door.public else "nobody", door.when)
        for door in ports.doors(manifest, target)
    )
    return table(("TCP port", "name", "what", "open to by default", "when to open it"), rows)
