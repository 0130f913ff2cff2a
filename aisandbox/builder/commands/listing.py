"""Write what marketplaces print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisandbox import manifest as manifests


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(listing)


def listing(
    target: Annotated[str | None, typer.Option(help="Only this platform.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; build/listing without.")] = None,
    source: Annotated[Path, typer.Option("--manifest", help="Another manifest.")] = manifests.REPOSITORY
    / "marketplace.yaml",
) -> None:
    """Write every marketplace's files, and check them against its limits."""
    from aisandbox.builder import listing as service  # templates and locks, which no other command shall wait for

    manifest = manifests.load(source)
    targets = service.selected(manifest, target)
    folder = out or service.FOLDER
    for path in service.write(manifest, folder, targets):
        print(path)
    report = service.lint(folder, targets)
    service.require_clean(report, source)
    print(f"Checked {report.files} files: all rules are kept.")
    if report.skipped:
        typer.echo(f"Not checked, for want of the tool (make dev): {', '.join(report.skipped)}", err=True)
