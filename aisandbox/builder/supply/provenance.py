"""How an image came about, as an in-toto statement with a predicate of SLSA provenance 1."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from aisandbox import manifest
from aisandbox.builder import packer_client
from aisandbox.builder.supply.checksums import sha256
from aisandbox.builder.supply.inventory import Inventory, Kind
from aisandbox.builder.supply.source import Source

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER_VARIABLE = "AISANDBOX_BUILDER_ID"
"""Environment variable with the URI of the builder, for those who vouch for theirs."""
LOCKS = ("*.txt", "*/package-lock.json")
MOST_CHANGED = 100
"""Files that are named of a checkout that differs from its commit."""


def locks() -> dict[str, str]:
    """Digests of all lock files, by their path below locks/."""
    folder = manifest.REPOSITORY / "locks"
    found = sorted(path for pattern in LOCKS for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}


def statement(
    *,
    subjects: Mapping[str, str],
    parameters: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    inventory: Inventory,
    source: Source,
    started: datetime,
    finished: datetime,
) -> dict[str, Any]:
    """The statement.

    Args:
        subjects: files and their SHA-256.
        parameters: what the user has asked for.
        layers: the baked layers with their keys, lowest first.
    """
    product = manifest.load().product
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{product.support_url}/build/image/v1",
                "externalParameters": dict(parameters),
                "internalParameters": {"layers": [dict(layer) for layer in layers]},
                "resolvedDependencies": [*_source(source), *_locks(), *_debian(inventory)],
            },
            "runDetails": {
                "builder": {
                    "id": os.environ.get(BUILDER_VARIABLE) or f"{product.support_url}/builders/local",
                    "version": {
                        "packer": ".".join(map(str, packer_client.version())),
                        "ansible-core": version("ansible-core"),
                        "python": platform.python_version(),
                    },
                },
                "metadata": {"startedOn": _time(started), "finishedOn": _time(finished)},
            },
        },
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _source(source: Source) -> list[dict[str, Any]]:
    if not source.commit:
        return []
    changed = list(source.changed[:MOST_CHANGED])
    notes = {"dirty": source.dirty, **({"changed": changed, "changedFiles": len(source.changed)} if changed else {})}
    return [{"name": "source", "digest": {"gitCommit": source.commit}, "annotations": notes}]


def _locks() -> list[dict[str, Any]]:
    return [{"name": f"locks/{name}", "digest": {"sha256": digest}} for name, digest in locks().items()]


def _debian(inventory: Inventory) -> list[dict[str, Any]]:
    sources = [{"name": "apt", "uri": mirror.split(" ")[0], "annotations": {"suite": mirror.split(" ")[-1]}}
               for mirror in inventory.mirrors]  # fmt: skip
    return [*sources, *({"uri": package.purl} for package in inventory.of(Kind.debian))]
