"""The inventory as CycloneDX 1.6, by cyclonedx-python-lib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from aisandbox import manifest
from aisandbox.builder.errors import BuildError
from aisandbox.builder.supply.document import TOOL, Document
from aisandbox.builder.supply.inventory import Inventory, Kind, Package
from aisandbox.builder.supply.licences import NOASSERTION

NAME = "sbom.cyclonedx.json"
PREFIX = "aisandbox:"
ALGORITHMS = {
    "sha1": HashAlgorithm.SHA_1,
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}
PROPERTIES = ("architecture", "source", "source_version", "section", "distribution", "said_in", "content", "commit")
"""Fields that CycloneDX has no place for."""
TYPES = {
    Kind.model: ComponentType.MACHINE_LEARNING_MODEL,
    Kind.own: ComponentType.APPLICATION,
}
LARGEST = 64 * 2**20


def text(document: Document) -> str:
    """The SBOM. The same document gives the same bytes."""
    bom = Bom(serial_number=document.uuid, version=1)
    bom.metadata.timestamp = document.created
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER if document.container else ComponentType.OPERATING_SYSTEM,
        name=document.subject,
        version=document.inventory.version,
        bom_ref=document.subject,
    )
    bom.metadata.tools.components.add(
        Component(type=ComponentType.APPLICATION, name=TOOL, version=manifest.load().product.version)
    )
    components = [_component(package) for package in document.inventory.packages]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(bom.metadata.component, components)
    written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return json.dumps(written, indent=1, sort_keys=True) + "\n"


def _component(package: Package) -> Component:
    properties = [Property(name=PREFIX + "kind", value=package.kind.value)]
    for field in PROPERTIES:
        if value := getattr(package, field):
            properties.append(Property(name=PREFIX + field, value=value))
    properties += [Property(name=PREFIX + "place", value=place) for place in package.places]
    algorithm, _, digest = package.artifact.partition(":")
    scope, _, name = package.name.rpartition("/") if package.kind is Kind.npm else ("", "", package.name)
    homepage = ExternalReference(type=ExternalReferenceType.WEBSITE, url=XsUri(package.homepage.replace(" ", "%20")))
    return Component(
        type=TYPES.get(package.kind, ComponentType.LIBRARY),
        group=scope or None,
        name=name,
        version=package.version or None,
        purl=PackageURL.from_string(package.purl),
        bom_ref=package.purl,
        licenses=[LicenseExpression(package.licence)] if package.licence != NOASSERTION else None,
        supplier=OrganizationalEntity(name=package.supplier) if package.supplier else None,
        hashes=[HashType(alg=ALGORITHMS[algorithm], content=digest)] if algorithm in ALGORITHMS else None,
        external_references=[homepage] if package.homepage else None,
        properties=properties,
    )


def read(path: Path) -> Inventory:
    """The inventory in an SBOM that `text` has written; what it says of licences is left out.

    Raises:
        BuildError: the file cannot be read, or is none of ours.
    """
    try:
        with path.open("rb") as handle:
            content = json.loads(handle.read(LARGEST))
        packages = tuple(sorted((_package(entry) for entry in content["components"]), key=lambda package: package.key))
        about = content["metadata"]["component"]
        return Inventory(name=str(about["name"]), version=str(about["version"]), packages=packages)
    except OSError as error:
        raise BuildError(f"{path} cannot be read: {error.strerror}", "name an image's sbom.cyclonedx.json") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BuildError(f"{path} is no SBOM of ours", f"name an image's {NAME}; make image writes it") from error


def _package(entry: dict[str, Any]) -> Package:
    said = [(str(item["name"]).removeprefix(PREFIX), str(item["value"])) for item in entry["properties"]]
    scope = f"{entry['group']}/" if entry.get("group") else ""
    return Package(
        name=scope + str(entry["name"]),
        version=str(entry.get("version") or ""),
        kind=Kind(dict(said)["kind"]),
        places=tuple(value for name, value in said if name == "place"),
        **{name: value for name, value in said if name in PROPERTIES},
    )
