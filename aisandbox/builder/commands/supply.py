"""Tell what an image is made of, what is known against it, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisandbox import manifest
from aisandbox.builder.bake import NEEDED_GIB, bake
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Store
from aisandbox.builder.progress import Phases
from aisandbox.builder.supply import audit_report, collect, compare, vulnerabilities
from aisandbox.builder.supply.inventory import Inventory

REPORTS = manifest.REPOSITORY / "build" / "audit"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(name="audit")(audit_command)
    app.command(name="compare")(compare_command)


def audit_command(
    flavour: Annotated[str, typer.Option(help="Flavour of the image.")] = "cpu",
    sbom: Annotated[
        Path | None, typer.Option(help="sbom.cyclonedx.json of an image, instead of the layers baked here.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Debian's security tracker as a file, instead of asking for it.")
    ] = None,
    pypi: Annotated[
        str, typer.Option(help="Server that speaks PyPI's JSON.", envvar="AISANDBOX_AUDIT_PYPI")
    ] = vulnerabilities.PYPI,
    debian: Annotated[
        str, typer.Option(help="Address of Debian's security tracker.", envvar="AISANDBOX_AUDIT_DEBIAN")
    ] = vulnerabilities.DEBIAN,
    npm: Annotated[str, typer.Option(help="Registry of npm.", envvar="AISANDBOX_AUDIT_NPM")] = vulnerabilities.NPM,
) -> None:
    """Look for known vulnerabilities. Status 3: an update mends some; 4: not everybody could be asked."""
    from aisandbox.builder.supply import cyclonedx_json

    with Phases() as phases:
        inventory = cyclonedx_json.read(sbom) if sbom else _layers(flavour, phases)
        services = vulnerabilities.Services(pypi, debian, npm, data)
        with phases.phase("ask for known vulnerabilities", audit_report.EXPECTED_SECONDS):
            found = vulnerabilities.audit(inventory, str(sbom or flavour), services)
    path = REPORTS / ("sbom.json" if sbom else f"{flavour}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found.to_json())
    print(audit_report.text(found, path), end="")
    raise typer.Exit(found.status)


def _layers(flavour: str, phases: Phases) -> Inventory:
    if flavour not in NEEDED_GIB:
        raise BuildError(f"there is no flavour {flavour!r}", f"choose one of: {', '.join(NEEDED_GIB)}")
    top = bake(flavour, phases)
    with phases.phase("list what is inside", collect.EXPECTED_SECONDS):
        return collect.of_layers(Store().lower_directories(top))


def compare_command(
    before: Annotated[Path, typer.Argument(help="manifest.json of an image, or the folder that holds it.")],
    after: Annotated[Path, typer.Argument(help="The same of another image.")],
) -> None:
    """Tell which packages changed from one image to another, as Markdown for release notes."""
    print(compare.manifests(before, after), end="")
