"""Shows a change, and sends it when told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aisandbox import manifest as manifests
from aisandbox.builder import listing
from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish import aws, digitalocean, linode
from aisandbox.builder.publish.change import Change, Environment, Platform
from aisandbox.manifest import REPOSITORY, Manifest

PLATFORMS: dict[str, Platform] = {"digitalocean": digitalocean, "linode": linode, "aws": aws}
"""Those with an API for it, in the order of their names in `targets`."""
RECORDS = REPOSITORY / "build" / "publish"


def plan(target: str, image: str, environment: Environment) -> Change:
    """The change that publishing the image would ask for. Nothing is sent, and no credentials are needed.

    Raises:
        BuildError: there is no such target, it has no API for this, or the image's id is none of its.
    """
    manifest = manifests.load()
    platform = _platform(manifest, target)
    if not image:
        raise BuildError(f"which image shall {manifest.targets[target].title} get?", f"make image TARGET={target}")
    return platform.change(_body(manifest, target, platform.BODY), image, environment)


def missing(target: str, environment: Environment) -> list[str]:
    """Names of the variables that sending needs and that are not set."""
    return [name for name in manifests.load().targets[target].publish_credentials if not environment.get(name)]


def send(target: str, change: Change, environment: Environment, say: Callable[[str], None]) -> dict[str, Any]:
    """Send the change and record the answer.

    Raises:
        BuildError: credentials are missing, the platform cannot be reached, or refuses.
    """
    manifest = manifests.load()
    absent = missing(target, environment)
    if absent:
        raise BuildError(
            f"publishing on {manifest.targets[target].title} needs {' and '.join(absent)} in the environment",
            " ".join(["export", *(f"{name}=…" for name in absent)]),
        )
    answer = _platform(manifest, target).send(change, environment, say)
    path = record(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "sent": datetime.now(UTC).isoformat(timespec="seconds"),
        "request": change.request,
        "body": change.body,
        "answer": answer,
    }
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return answer


def _body(manifest: Manifest, target: str, name: str) -> dict[str, Any]:
    """The body that the listing has for it, as the manifest is now."""
    body: dict[str, Any] = json.loads(listing.files(manifest, target)[name])
    return body


def record(target: str) -> Path:
    """Where the last change that was sent is kept, with the platform's answer."""
    return RECORDS / f"{target}.json"


def _platform(manifest: Manifest, target: str) -> Platform:
    if target not in manifest.targets:
        raise BuildError(f"there is no target {target!r}", f"make publish TARGET={'|'.join(PLATFORMS)}")
    if target not in PLATFORMS:
        raise BuildError(
            f"{manifest.targets[target].title} has no API for listings",
            f"make listing TARGET={target}, then follow build/listing/{target}/README.md",
        )
    return PLATFORMS[target]
