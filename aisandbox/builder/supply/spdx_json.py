"""The inventory as SPDX 2.3, by spdx-tools."""

from __future__ import annotations

import hashlib
import io
import re
from email.utils import parseaddr

from license_expression import LicenseExpression, Licensing
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo
from spdx_tools.spdx.model.document import Document as SpdxDocument
from spdx_tools.spdx.model.extracted_licensing_info import ExtractedLicensingInfo
from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory, PackagePurpose
from spdx_tools.spdx.model.package import Package as SpdxPackage
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion
from spdx_tools.spdx.writer.json.json_writer import write_document_to_stream

from aisandbox import manifest
from aisandbox.builder.supply.document import TOOL, Document
from aisandbox.builder.supply.inventory import Kind, Package
from aisandbox.builder.supply.licences import NOASSERTION, symbols

NAME = "sbom.spdx.json"
ROOT = "SPDXRef-image"
ALGORITHMS = {
    "sha1": ChecksumAlgorithm.SHA1,
    "sha256": ChecksumAlgorithm.SHA256,
    "sha384": ChecksumAlgorithm.SHA384,
    "sha512": ChecksumAlgorithm.SHA512,
}


def build(document: Document) -> SpdxDocument:
    """The SBOM, as the library's own validator takes it."""
    product = manifest.load().product
    inventory = document.inventory
    info = CreationInfo(
        spdx_version="SPDX-2.3",
        spdx_id="SPDXRef-DOCUMENT",
        name=document.subject,
        document_namespace=document.namespace,
        creators=[Actor(ActorType.TOOL, f"{TOOL}-{product.version}")],
        created=document.created.replace(tzinfo=None),
    )
    root = SpdxPackage(
        spdx_id=ROOT,
        name=document.subject,
        version=inventory.version,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        primary_package_purpose=PackagePurpose.CONTAINER if document.container else PackagePurpose.OPERATING_SYSTEM,
    )
    licensing = Licensing()
    packages = [_package(package, licensing) for package in inventory.packages]
    used = {name for package in inventory.packages for name in symbols(package.licence)}
    texts = [
        ExtractedLicensingInfo(
            license_id=name,
            license_name=name.removeprefix("LicenseRef-"),
            extracted_text=inventory.texts.get(name) or "The text is in the package.",
        )
        for name in sorted(used)
        if name.startswith("LicenseRef-")
    ]
    relations = [Relationship(info.spdx_id, RelationshipType.DESCRIBES, ROOT)]
    relations += [Relationship(ROOT, RelationshipType.CONTAINS, package.spdx_id) for package in packages]
    return SpdxDocument(info, packages=[root, *packages], relationships=relations, extracted_licensing_info=texts)


def text(document: Document) -> str:
    """The SBOM. The same document gives the same bytes."""
    stream = io.StringIO()
    # The tests validate; the library takes many seconds for it.
    write_document_to_stream(build(document), stream, validate=False, drop_duplicates=False)
    return stream.getvalue() + "\n"


def _package(package: Package, licensing: Licensing) -> SpdxPackage:
    algorithm, _, digest = package.artifact.partition(":")
    checksums = [Checksum(ALGORITHMS[algorithm], digest)] if algorithm in ALGORITHMS else []
    notes = [f"in {place}" for place in package.places]
    notes += [f"built from source package {package.source} {package.source_version}"] if package.source else []
    notes += [f"list of files: {package.content}"] if package.content else []
    notes += [f"source commit: {package.commit}"] if package.commit else []
    return SpdxPackage(
        spdx_id=_identifier(package),
        name=package.name,
        version=package.version or None,
        download_location=SpdxNoAssertion(),
        files_analyzed=False,
        supplier=_supplier(package.supplier),
        homepage=package.homepage or None,
        checksums=checksums,
        license_concluded=SpdxNoAssertion(),
        license_declared=_expression(package.licence, licensing),
        license_comment=f"said in {package.said_in}" if package.said_in else None,
        source_info="; ".join(notes) or None,
        primary_package_purpose=PackagePurpose.APPLICATION if package.kind is Kind.own else None,
        external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", package.purl)],
    )


def _identifier(package: Package) -> str:
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{package.kind.value}-{package.name}-{package.version}")
    return f"SPDXRef-{words[:80]}-{hashlib.sha256(package.purl.encode()).hexdigest()[:8]}"


def _expression(licence: str, licensing: Licensing) -> LicenseExpression | SpdxNoAssertion:
    return SpdxNoAssertion() if licence == NOASSERTION else licensing.parse(licence)


def _supplier(said: str) -> Actor | SpdxNoAssertion:
    name, address = parseaddr(said)
    name = (name or said).strip()
    if not name:
        return SpdxNoAssertion()
    return Actor(ActorType.ORGANIZATION, name, address if "@" in address and name != address else None)
