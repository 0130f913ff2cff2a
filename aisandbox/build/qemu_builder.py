"""Bakes the whole image inside a virtual machine, from a vendor's cloud image: for hosts whose KVM works."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from aisandbox import manifest
from aisandbox.build import host, packer_client, qemu, seed
from aisandbox.build.errors import BuildError
from aisandbox.build.host import HostSettings
from aisandbox.build.machine import make_key
from aisandbox.build.progress import Phases

TEMPLATE = manifest.REPOSITORY / "packer" / "qemu.pkr.hcl"
OUTPUT = manifest.REPOSITORY / "build" / "qemu"
DEBIAN = "https://cloud.debian.org/images/cloud/bookworm/latest"
SOURCE = f"{DEBIAN}/debian-12-genericcloud-amd64.qcow2"
CHECKSUM = f"file:{DEBIAN}/SHA512SUMS"
EXPECTED_SECONDS = 900.0


def bake(flavour: str, source: str, phases: Phases) -> Path:
    """Run `packer/qemu.pkr.hcl`; returns the folder with the qcow2 image and its checksum.

    Raises:
        BuildError: KVM does not work here, or the build failed.
    """
    if not qemu.kvm_works():
        raise BuildError(
            "KVM does not work on this host (a probe guest did not run), and without it a bake takes hours",
            "use the local builder, which needs none: make image",
        )
    work = prepare(flavour)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    log = manifest.REPOSITORY / "build" / "log" / "qemu.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with phases.phase("bake in QEMU", EXPECTED_SECONDS):
        packer_client.build(TEMPLATE, variables(work, source), log)
    shutil.rmtree(work)
    return OUTPUT


def prepare(flavour: str) -> Path:
    """Key, seed and variables for the template, in a folder of their own."""
    work = manifest.REPOSITORY / "build" / "qemu-work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    key = make_key(work)
    user = manifest.load().os.default_user
    public_key = key.with_suffix(".pub").read_text().strip()
    seed.write_seed_dir(
        work / "seed", instance_id="bake", hostname="bake", user_data=seed.ssh_user_data(public_key, user)
    )
    settings = _without_local_files(host.read())
    facts = {
        "flavour": flavour,
        "image_bake": True,
        "repo_root": str(manifest.REPOSITORY),
        "bake_environment": settings.proxies,
        "bake_uv_environment": settings.uv_environment(),
        "bake_uv_environment_cpu_torch": settings.uv_environment(cpu_torch=True),
    }
    (work / "vars.json").write_text(json.dumps(facts))
    return work


def variables(work: Path, source: str) -> dict[str, str]:
    """The template's variables for a prepared folder."""
    return {
        "source_image": source,
        "source_checksum": CHECKSUM if source == SOURCE else "none",
        "vars_file": str(work / "vars.json"),
        "seed_directory": str(work / "seed"),
        "ssh_username": manifest.load().os.default_user,
        "ssh_private_key_file": str(work / "id_ed25519"),
        "output_directory": str(OUTPUT),
    }


def _without_local_files(settings: HostSettings) -> HostSettings:
    """Settings that mean the same inside a virtual machine, which sees none of the host's files."""

    def remote(locations: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(place for place in locations if place.startswith(("http://", "https://")))

    return replace(
        settings,
        index_url=next(iter(remote((settings.index_url or "",))), None),
        extra_index_urls=remote(settings.extra_index_urls),
        find_links=remote(settings.find_links),
        ca_bundle=None,
    )
