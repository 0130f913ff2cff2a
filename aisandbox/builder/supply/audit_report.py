"""What an audit says to the person at the terminal."""

from __future__ import annotations

from pathlib import Path

from aisandbox.builder.supply.inventory import Kind
from aisandbox.builder.supply.vulnerabilities import DEBIAN, Audit

EXPECTED_SECONDS = 60.0
MOST_ROWS = 40
TITLES = {
    Kind.debian: "Debian packages",
    Kind.python: "Python packages",
    Kind.npm: "npm packages",
}


def text(found: Audit, path: Path) -> str:
    """A short table of what an update mends, the number of the rest, and what could not be asked.

    Args:
        path: where the whole report lies.
    """
    fixable = found.fixable
    lines = []
    if fixable:
        rows = [("package", "version", "vulnerability", "fixed in")]
        rows += [(f.package, f.version, f.id, ", ".join(f.fixed_in)) for f in fixable[:MOST_ROWS]]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines += ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
        if len(fixable) > MOST_ROWS:
            lines.append(f"… and {len(fixable) - MOST_ROWS} more")
        lines.append("")
    lines.append(f"{len(fixable)} known that an update mends, {len(found.findings) - len(fixable)} known without one")
    lines += [
        f"asked {asked.address} about {asked.packages} {TITLES[Kind(kind)]}" for kind, asked in found.asked.items()
    ]
    if found.unknown:
        lines.append(f"{len(found.unknown)} packages are not known there in their version; the report names them")
    for kind, why in found.unasked.items():
        lines.append(f"NOT ASKED about {TITLES[Kind(kind)]}: {why}")
        if kind == Kind.debian.value:
            lines += [f"  elsewhere: curl -o debian.json {DEBIAN}", "  then here: make audit DATA=debian.json"]
    return "\n".join([*lines, f"report: {path}"]) + "\n"
