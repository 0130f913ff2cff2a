"""What the platforms ask of texts and names, each with its source. The linter applies it to the written files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

Place = tuple[str | int, ...]
"""Where in marketplace.yaml a text comes from. "*" stands for the number of the entry."""


class Rule(Protocol):
    @property
    def words(self) -> str:
        """What is allowed."""

    def breach(self, text: str) -> str | None:
        """What the text has instead; None when it obeys."""


@dataclass(frozen=True)
class Characters:
    most: int
    least: int = 1

    @property
    def words(self) -> str:
        return f"{self.least} to {self.most} characters"

    def breach(self, text: str) -> str | None:
        return None if self.least <= len(text) <= self.most else f"it has {len(text)}"


@dataclass(frozen=True)
class Words:
    least: int
    most: int

    @property
    def words(self) -> str:
        return f"{self.least} to {self.most} words"

    def breach(self, text: str) -> str | None:
        count = len(text.split())
        return None if self.least <= count <= self.most else f"it has {count}"


@dataclass(frozen=True)
class Bytes:
    most: int

    @property
    def words(self) -> str:
        return f"at most {self.most} bytes"

    def breach(self, text: str) -> str | None:
        size = len(text.encode())
        return None if size <= self.most else f"it has {size}"


@dataclass(frozen=True)
class Ascii:
    words = "only ASCII characters"

    def breach(self, text: str) -> str | None:
        other = next((letter for letter in text if not letter.isascii()), None)
        return other and f"it has {other!r} (U+{ord(other):04X})"


@dataclass(frozen=True)
class Matches:
    pattern: str
    words: str

    def breach(self, text: str) -> str | None:
        return None if re.fullmatch(self.pattern, text) else f"it is {text!r}"


def line(most: int) -> Rule:
    """Text on one line."""
    return Matches(f"[^\n]{{1,{most}}}", f"1 to {most} characters on one line")


HTTPS = Matches("https://[!-~]+", "addresses with https")


@dataclass(frozen=True)
class Limit:
    """One rule for the texts that a pointer finds in one file of a target; the whole file without a pointer."""

    target: str
    file: str
    rule: Rule
    source: str
    pointer: str = ""
    """Like a JSON pointer, where * stands for every entry."""
    place: Place = ()


TAGLINE: Place = ("product", "tagline")
NAME: Place = ("product", "name")
VERSION: Place = ("product", "version")
DESCRIPTION: Place = ("listing", "description")
NOTES: Place = ("release", "notes")
KEY: Place = ("options", "*", "key")
LABEL: Place = ("options", "*", "label")
OPTION: Place = ("options", "*")

AKAMAI = "akamai-compute-marketplace/marketplace-apps docs/CONTRIBUTING.md, July 2026"
LINODE = "Linode API v4, POST /linode/stackscripts; lengths recalled"
UDF = "techdocs.akamai.com: Write a custom script for use with StackScripts"
VULTR = "docs.vultr.com: Create a User-Supplied Variable, August 2026"
AWS_TEXTS = "AWS Marketplace seller guide: Categories and metadata"
AWS_ASCII = "the AWS API refuses other characters in descriptions of images (AlphaBitCore/nexus-gateway, July 2026)"
AWS_CATALOG = "AWS Marketplace API reference: AmiProduct@1.0; lengths recalled"
CLOUDFORMATION = "CloudFormation quotas, recalled; cfn-lint knows them too"
EC2 = "EC2 API reference: IpRange, recalled"
AZURE = "Partner Center, offer listing, recalled; not verified against the current text"
AZURE_ARM = "Azure Resource Manager limits, recalled"
GCP = "Compute Engine: names of resources (RFC 1035); Terraform's names"
RUNPOD = "docs.runpod.io: Publishing guide of the Hub, recalled; not verified against the current text"
VENDOR_PORTAL = (
    "digitalocean/marketplace-partners README.md, October 2025: fields without published lengths; kept short by us"
)
OURS = "our own rule"

LIMITS = (
    # Akamai
    Limit("linode", "description.txt", Words(100, 125), AKAMAI, place=DESCRIPTION),
    Limit("linode", "stackscript.json", Characters(128, least=3), LINODE, "/label", NAME),
    Limit("linode", "stackscript.json", Bytes(65535), LINODE, "/script"),
    Limit("linode", "stackscript.json", Ascii(), LINODE, "/description", TAGLINE),
    Limit(
        "linode", "stackscript.sh", Matches("[a-z][a-z0-9_]{0,63}", "small letters, digits and _"), UDF, "/*/name", KEY
    ),
    Limit(
        "linode",
        "stackscript.sh",
        Matches('[^"<>]{1,255}', "1 to 255 characters without quotes, < and >"),
        UDF,
        "/*/label",
        OPTION,
    ),
    Limit("linode", "stackscript.sh", Ascii(), UDF, "/*/label", OPTION),
    # Vultr
    Limit("vultr", "variables.json", Matches("[a-z_]{1,15}", "1 to 15 small letters and _"), VULTR, "/*/name", KEY),
    Limit("vultr", "variables.json", Characters(255), VULTR, "/*/label", LABEL),
    Limit("vultr", "description.txt", line(255), VULTR, place=TAGLINE),
    # DigitalOcean
    Limit(
        "digitalocean",
        "patch.json",
        Matches(r"[0-9A-Za-z.+-]{1,50}", "letters, digits, dots and dashes"),
        VENDOR_PORTAL,
        "/version",
        VERSION,
    ),
    Limit("digitalocean", "patch.json", Characters(1000), VENDOR_PORTAL, "/reasonForUpdate", NOTES),
    Limit("digitalocean", "patch.json", Characters(100), VENDOR_PORTAL, "/softwareIncluded/*/name"),
    Limit("digitalocean", "patch.json", HTTPS, VENDOR_PORTAL, "/softwareIncluded/*/website"),
    Limit("digitalocean", "patch.json", HTTPS, VENDOR_PORTAL, "/softwareIncluded/*/licenseLink"),
    Limit("digitalocean", "patch.json", HTTPS, VENDOR_PORTAL, "/softwareIncluded/*/releaseNotes"),
    # AWS
    Limit("aws", "description.txt", Characters(350), AWS_TEXTS, place=DESCRIPTION),
    Limit("aws", "description.txt", Ascii(), AWS_ASCII, place=DESCRIPTION),
    Limit("aws", "short.txt", Ascii(), AWS_ASCII, place=TAGLINE),
    Limit("aws", "changeset.json", Ascii(), AWS_ASCII),
    Limit(
        "aws", "changeset.json", Characters(255), AWS_CATALOG, "/ChangeSet/*/DetailsDocument/Version/VersionTitle", NAME
    ),
    Limit(
        "aws",
        "changeset.json",
        Characters(30000),
        AWS_CATALOG,
        "/ChangeSet/*/DetailsDocument/Version/ReleaseNotes",
        NOTES,
    ),
    Limit("aws", "usage.md", Ascii(), AWS_ASCII),
    Limit("aws", "cloudformation.yaml", Bytes(51200), CLOUDFORMATION),
    Limit("aws", "cloudformation.yaml", Ascii(), CLOUDFORMATION),
    Limit("aws", "cloudformation.yaml", Bytes(1024), CLOUDFORMATION, "/Description", TAGLINE),
    Limit("aws", "cloudformation.yaml", Characters(4000), CLOUDFORMATION, "/Parameters/*/Description"),
    Limit(
        "aws",
        "cloudformation.yaml",
        Matches("[A-Za-z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}", "letters, digits and some signs"),
        EC2,
        "/Resources/*/Properties/SecurityGroupIngress/*/Description",
        ("ports",),
    ),
    # Azure
    Limit("azure", "summary.txt", Characters(100), AZURE, place=TAGLINE),
    Limit("azure", "description.html", Characters(5000), AZURE, place=DESCRIPTION),
    Limit("azure", "mainTemplate.json", Bytes(4 * 2**20), AZURE_ARM),
    Limit(
        "azure",
        "mainTemplate.json",
        Characters(140, least=0),
        AZURE_ARM,
        "/resources/*/properties/securityRules/*/properties/description",
        ("ports",),
    ),
    # Google
    Limit(
        "gcp",
        "module/metadata.yaml",
        Matches("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "small letters, digits and dashes"),
        GCP,
        "/metadata/name",
        ("product", "id"),
    ),
    Limit(
        "gcp",
        "module/metadata.yaml",
        Matches("[a-z][a-z0-9_]{0,62}", "small letters, digits and _"),
        GCP,
        "/spec/interfaces/variables/*/name",
    ),
    # RunPod
    Limit("container", ".runpod/hub.json", Characters(100), RUNPOD, "/title", NAME),
    Limit("container", ".runpod/hub.json", Characters(255), RUNPOD, "/description", TAGLINE),
    Limit(
        "container",
        ".runpod/hub.json",
        Matches("[A-Z][A-Z0-9_]*", "capital letters, digits and _"),
        RUNPOD,
        "/config/env/*/key",
        KEY,
    ),
    # All
    Limit("*", "short.txt", line(120), OURS, place=TAGLINE),
    Limit("*", "short.txt", Ascii(), OURS, place=TAGLINE),
    Limit("*", "user-data.yaml", Bytes(16384), "EC2: the least of all platforms' limits of user-data"),
)
