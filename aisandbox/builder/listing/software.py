"""What the image is made of, as listings name it: versions come from the locks, licences from here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from aisandbox.builder.errors import BuildError
from aisandbox.manifest import REPOSITORY, Manifest

LOCKS = REPOSITORY / "locks"


@dataclass(frozen=True)
class Pinned:
    """A part that a lock file pins. In the addresses {version} stands for its version."""

    name: str
    lock: str
    package: str
    website: str
    licence: str
    licence_link: str
    release_notes: str


@dataclass(frozen=True)
class Software:
    """A part of the image that users know by name."""

    name: str
    version: str
    website: str
    licence: str
    licence_link: str
    release_notes: str


PINNED = (
    Pinned(
        name="vLLM",
        lock="vllm-cuda.txt",
        package="vllm",
        website="https://vllm.ai",
        licence="Apache-2.0",
        licence_link="https://github.com/vllm-project/vllm/blob/v{version}/LICENSE",
        release_notes="https://github.com/vllm-project/vllm/releases/tag/v{version}",
    ),
    Pinned(
        name="Open WebUI",
        lock="open-webui.txt",
        package="open-webui",
        website="https://openwebui.com",
        licence="Open WebUI License",
        licence_link="https://github.com/open-webui/open-webui/blob/v{version}/LICENSE",
        release_notes="https://github.com/open-webui/open-webui/releases/tag/v{version}",
    ),
    Pinned(
        name="PyTorch",
        lock="vllm-cuda.txt",
        package="torch",
        website="https://pytorch.org",
        licence="BSD-3-Clause",
        licence_link="https://github.com/pytorch/pytorch/blob/v{version}/LICENSE",
        release_notes="https://github.com/pytorch/pytorch/releases/tag/v{version}",
    ),
    Pinned(
        name="code-server",
        lock="code-server/package-lock.json",
        package="code-server",
        website="https://coder.com/docs/code-server",
        licence="MIT",
        licence_link="https://github.com/coder/code-server/blob/v{version}/LICENSE",
        release_notes="https://github.com/coder/code-server/releases/tag/v{version}",
    ),
    Pinned(
        name="JupyterLab",
        lock="workbench.txt",
        package="jupyterlab",
        website="https://jupyter.org",
        licence="BSD-3-Clause",
        licence_link="https://github.com/jupyterlab/jupyterlab/blob/v{version}/LICENSE",
        release_notes="https://github.com/jupyterlab/jupyterlab/releases/tag/v{version}",
    ),
)


def software(manifest: Manifest) -> tuple[Software, ...]:
    """The product and its parts. Debian's packages are not among them: an image's own manifest lists those.

    Raises:
        BuildError: a lock file does not pin what it should.
    """
    product = manifest.product
    own = Software(
        name=product.name,
        version=product.version,
        website=product.support_url,
        licence=product.license,
        licence_link=f"https://spdx.org/licenses/{product.license}.html",
        release_notes=manifest.listing.documentation_url,
    )
    return (own, *(_filled(part) for part in PINNED))


def _filled(part: Pinned) -> Software:
    version = _version(part.lock, part.package)
    return Software(
        name=part.name,
        version=version,
        website=part.website,
        licence=part.licence,
        licence_link=part.licence_link.format(version=version),
        release_notes=part.release_notes.format(version=version),
    )


@cache
def _version(lock: str, package: str) -> str:
    text = (LOCKS / lock).read_text(encoding="utf-8")
    if lock.endswith(".json"):
        found = json.loads(text)["packages"].get(f"node_modules/{package}", {}).get("version")
    else:
        match = re.search(rf"^{re.escape(package)}==([^\s+;]+)", text, re.MULTILINE)
        found = match and match[1]
    if not found:
        raise BuildError(f"locks/{lock} pins no {package}", "make lock, or correct PINNED in listing/software.py")
    return str(found)
