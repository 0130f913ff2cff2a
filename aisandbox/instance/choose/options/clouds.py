"""Clouds whose metadata service holds options: which one this is, and how each is read."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.choose.options import cloud_init, metadata
from aisandbox.instance.choose.options.metadata import MetadataError, Service
from aisandbox.instance.choose.options.source import SECTION, Source
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem

CLOUD_IDS = {"vultr": "vultr", "gce": "gcp", "aws": "aws", "azure": "azure"}
"""Clouds by cloud-init's name for them, less what follows its first dash (a region's kind)."""
DMI = (
    ("sys_vendor", "Vultr", "vultr"),
    ("product_name", "Google Compute Engine", "gcp"),
    ("sys_vendor", "Amazon EC2", "aws"),
    ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "azure"),
)
"""What the firmware says on each cloud, in the words that cloud-init looks for, too."""


def platform(places: Places) -> str | None:
    """The cloud this instance runs on, if its metadata can hold options.

    The firmware is asked only where cloud-init has found no cloud: inside a container it tells of the host.
    """
    try:
        name = (places.cloud_run / "cloud-id").read_text(errors="replace").strip()
    except OSError:
        known = (files.read_json(places.cloud_run / "instance-data.json") or {}).get("v1")
        name = str(known.get("cloud_id") or "") if isinstance(known, dict) else ""
    if name not in ("", "none", "unknown"):
        return CLOUD_IDS.get(name.partition("-")[0])
    return next((cloud for file, said, cloud in DMI if _dmi(places, file) == said), None)


def read(places: Places, keys: Collection[str]) -> Iterator[Source]:
    """Options from the metadata service of this instance's cloud."""
    cloud = platform(places)
    if not cloud or not places.metadata:
        return
    has_user_data = bool(cloud_init.raw_user_data(places))
    readers: dict[str, metadata.Reader] = {
        "vultr": partial(_vultr, keys=keys),
        "gcp": _gcp,
        "aws": partial(_aws, keys=keys, has_user_data=has_user_data),
        "azure": partial(_azure, keys=keys),
    }
    try:
        yield from metadata.read(places, cloud, readers[cloud])
    except MetadataError as error:
        reason = f"the cloud's metadata service {error}, so options given there are not known"
        name = f"{cloud} metadata"
        fix = "Ask it again: sudo aisandbox configure. Or choose here: sudo aisandbox configure --set KEY=VALUE"
        yield Source(name, problems=(Problem(reason=reason, fix=fix, source=name),))


def _vultr(service: Service, keys: Collection[str]) -> list[Source]:
    """Variables of the marketplace application, each of its own address; a form's empty field is no choice."""
    headers = {"METADATA-TOKEN": "vultr"}
    answers = {key: service.ask(f"/v1/internal/app-{key}", headers) for key in keys}
    values = {key: answer.decode(errors="replace") for key, answer in answers.items() if answer and answer.strip()}
    return [Source("Vultr variables", values)]


def _gcp(service: Service) -> list[Source]:
    """Attributes of the instance named `aisandbox-KEY`; dashes and underscores of a key are the same."""
    path = "/computeMetadata/v1/instance/attributes/?recursive=true"
    attributes = _json(service.ask(path, {"Metadata-Flavor": "Google"}))
    return [Source("GCP instance attributes", _prefixed(attributes))]


def _aws(service: Service, keys: Collection[str], has_user_data: bool) -> list[Source]:
    """Bare user-data, unless cloud-init has handed it over already, and tags named `aisandbox:KEY`."""
    token = service.ask(
        "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT", absent=(403, 404)
    )
    if not token:  # switched off for this instance
        return []
    headers = {"X-aws-ec2-metadata-token": token.decode("ascii", errors="replace").strip()}
    found: list[Source] = []
    if not has_user_data:
        found += cloud_init.bare(service.ask("/latest/user-data", headers) or b"", "AWS user-data", keys)
    folder = "/latest/meta-data/tags/instance"
    names = (service.ask(folder, headers) or b"").decode(errors="replace").split("\n")
    ours = [name for name in names if re.fullmatch(rf"{SECTION}:[A-Za-z0-9_-]{{1,40}}", name)]
    tags = {name: (service.ask(f"{folder}/{name}", headers) or b"").decode(errors="replace") for name in ours[:50]}
    return [*found, Source("AWS tags", _prefixed(tags))]


def _azure(service: Service, keys: Collection[str]) -> list[Source]:
    """User data of the machine. Custom data comes by cloud-init."""
    path = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text"
    answer = service.ask(path, {"Metadata": "true"}) or b""
    try:
        raw = base64.b64decode(answer, validate=False)
    except ValueError:
        raise MetadataError("sent user data that is not base64") from None
    return list(cloud_init.bare(raw, "Azure user data", keys))


def _prefixed(entries: dict[str, Any]) -> dict[str, Any]:
    """Those of the entries that are ours, by option. Empty ones are fields of a form that were left out."""
    pattern = re.compile(rf"{SECTION}[-_:](.+)")
    return {
        match[1].lower().replace("-", "_"): value
        for name, value in entries.items()
        if (match := pattern.fullmatch(name)) and not (isinstance(value, str) and not value.strip())
    }


def _json(answer: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(answer or b"{}")
    except (ValueError, RecursionError):
        raise MetadataError("sent what is not JSON") from None
    if not isinstance(value, dict):
        raise MetadataError("sent what is not a JSON object")
    return value


def _dmi(places: Places, file: str) -> str:
    try:
        return (places.dmi / file).read_text(errors="replace").strip()
    except OSError:
        return ""
