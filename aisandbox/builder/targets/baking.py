"""Bakes an image on a platform with Packer."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder import ansible_output, host, packer_client, seed
from aisandbox.builder.errors import BuildError
from aisandbox.builder.host import HostSettings
from aisandbox.builder.image import IMAGES
from aisandbox.builder.machine import make_key
from aisandbox.builder.progress import Phases
from aisandbox.builder.targets import aws, failure, leftovers, qemu, template
from aisandbox.builder.targets.catalogue import check_credentials, check_packer, find
from aisandbox.manifest import REPOSITORY

EXPECTED_SECONDS = 1800.0
NO_SETTINGS = HostSettings(None, (), (), None, {})
STEP = re.compile(r"^(?:==> [^:]*: |.*TASK \[)(?P<step>[^\]\n]+)", re.MULTILINE)


def bake(
    target: str,
    flavour: str,
    phases: Phases,
    *,
    extra: Mapping[str, str] | None = None,
    tags: str = "",
    environment: Mapping[str, str] | None = None,
    settings: HostSettings = NO_SETTINGS,
) -> dict[str, Any]:
    """Bake an image for `target` there; returns its record, also written to build/image/TARGET/manifest.json.

    Args:
        extra: variables of the target's template, over those of `marketplace.yaml`.
        tags: layers to bake, for a source image that has the others; empty bakes all.
        environment: where credentials are looked up; this process's own by default.
        settings: package sources for the machine that bakes; public ones by default.

    Raises:
        BuildError: before anything is started: the target, Packer or credentials are missing, or a variable is
            unknown; later: the build failed, and Packer has removed what it had made.
    """
    entry = find(target)
    environment = os.environ if environment is None else environment
    check_credentials(entry, environment)
    check_packer(entry)
    if target == "qemu":
        qemu.begin()
        settings = without_local_files(host.read())
    record = IMAGES / target / "manifest.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)
    log = REPOSITORY / "build" / "log" / f"{target}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target}-", dir=record.parent) as folder:
        work = Path(folder)
        variables = {
            **prepare(target, flavour, work, extra=extra, settings=settings),
            "ansible_tags": tags,
            "record": str(record),
        }
        with phases.phase(f"bake for {target}", EXPECTED_SECONDS, lambda: _step(log)):
            try:
                packer_client.build(template.render(target, work), variables, log, environment)
            except BaseException as error:
                _tidy(target, variables, environment, phases)
                if isinstance(error, BuildError):
                    raise failure.explain(entry, log, error) from error
                raise
    facts: dict[str, Any] = json.loads(record.read_text())["builds"][-1]
    if target == "aws":
        aws.require_imdsv2(facts["artifact_id"], variables, environment)
    phases.note(f"bake for {target}", f"{entry.title} has the image {facts['artifact_id']}")
    return facts


def _tidy(target: str, variables: Mapping[str, str], environment: Mapping[str, str], phases: Phases) -> None:
    """Remove what Packer has left of a bake that failed, and say so; that it cannot be removed is no other failure."""
    try:
        removed = leftovers.remove(target, variables, environment)
    except BuildError as error:
        phases.note(f"bake for {target}", f"{error}. {error.fix}")
        return
    if removed:
        phases.note(f"bake for {target}", f"removed what Packer had left: {', '.join(removed)}")


def prepare(
    target: str,
    flavour: str,
    work: Path,
    *,
    extra: Mapping[str, str] | None = None,
    settings: HostSettings = NO_SETTINGS,
) -> dict[str, str]:
    """Variables of the target's template but `record`; `work` gets the files that they name.

    Raises:
        BuildError: a variable is none of the template's.
    """
    entry, product = find(target), manifest.load().product
    chosen = {name: _literal(value) for name, value in entry.settings.items()} | dict(extra or {})
    hcl = template.text(target)
    unknown = set(chosen) - template.declared(hcl)
    if unknown:
        raise BuildError(
            f"packer/sources/{target}.pkr.hcl has no variable {' and '.join(sorted(unknown))}",
            f"take one of these: {', '.join(sorted(template.declared(hcl)))}",
        )
    key = make_key(work)
    public_key = key.with_suffix(".pub").read_text().strip()
    facts = work / "vars.json"
    facts.write_text(json.dumps(_facts(target, flavour, settings)))
    access = user_data(public_key, chosen.get("ssh_username") or template.default(hcl, "ssh_username"))
    of_this_host = qemu.variables(work, access, chosen) if target == "qemu" else {}
    return {
        "vars_file": str(facts),
        "image_name": _image_name(flavour),
        "image_version": product.version,
        "flavour": flavour,
        "ssh_private_key_file": str(key),
        "ssh_public_key": public_key,
        "user_data": access,
        **of_this_host,
        **chosen,
    }


def user_data(public_key: str, user: str) -> str:
    """User-data that lets the key in as the source image's own user: root, or one that cloud-init makes."""
    if user == "root":
        # Some images let root in only to say who else should log in.
        return f"#cloud-config\ndisable_root: false\nusers: [{{name: root, ssh_authorized_keys: [{public_key}]}}]\n"
    return seed.ssh_user_data(public_key, user)


def _facts(target: str, flavour: str, settings: HostSettings) -> dict[str, object]:
    """Variables for Ansible."""
    return {
        "flavour": flavour,
        "image_bake": True,
        # As data: from its file, Ansible would read it anew for each task that names it.
        "manifest": manifest.load().model_dump(mode="json", by_alias=True),
        "repo_root": str(REPOSITORY),
        "platform_name": target,
        **settings.mirrors,
        "bake_environment": settings.proxies,
        "bake_uv_environment": settings.uv_environment(),
        "bake_npm_environment": settings.npm_environment(),
        "bake_uv_environment_cpu_torch": settings.uv_environment(cpu_torch=True),
    }


def without_local_files(settings: HostSettings) -> HostSettings:
    """Settings that mean the same in another machine on this network, which sees none of the host's files."""

    def remote(locations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(place for place in locations if place.startswith(("http://", "https://")))

    return replace(
        settings,
        index_url=next(iter(remote((settings.index_url or "",))), None),
        extra_index_urls=remote(settings.extra_index_urls),
        find_links=remote(settings.find_links),
        mirrors={name: place for name, place in settings.mirrors.items() if remote((place,))},
        ca_bundle=None,
    )


def _image_name(flavour: str) -> str:
    product = manifest.load().product
    moment = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    return f"{product.id}-{product.version}-{flavour}-{moment}".replace(".", "-").lower()


def _literal(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _step(log: Path) -> str:
    """What Packer or Ansible is at, from the end of the log."""
    return ([found["step"] for found in STEP.finditer(ansible_output.tail(log))] or [""])[-1]
