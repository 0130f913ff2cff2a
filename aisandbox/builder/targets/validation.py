"""Checks the Packer template of a target without an account: by Packer where it can, else by what is known of it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import packer_client
from aisandbox.builder.errors import BuildError
from aisandbox.builder.targets import baking, template
from aisandbox.builder.targets.builders import OPTIONS
from aisandbox.builder.targets.catalogue import find, supported

COMMON = {"source_image", "size", "region", "ssh_username", "finish"}
"""Variables that every source has."""
FAKE = "fake-for-validation"
NOBODY = "http://127.0.0.1:9"
"""An address that refuses connections: what a builder that signs in while it validates stops at."""
SIGN_IN = re.compile(r"1 error\(s\) occurred:\s+\* [^\n]*(?:127\.0\.0\.1:9)[^\n]*refused")
STAND_IN = 'source "null" "image" {\n  communicator = "none"\n}\n'


def validate(target: str, environment: Mapping[str, str] | None = None) -> str:
    """Check the template of a target; returns what was checked, for people.

    Args:
        environment: Packer's; by default this process's with fake credentials, and nothing real is reached.

    Raises:
        BuildError: the target is unknown, or its template is wrong.
    """
    entry = find(target)
    if entry.kind != "cloud":
        _validate_local()
        return "made from the local bake, whose template Packer accepts"
    version = packer_client.version()
    given = {**os.environ, **fake_credentials(target)} if environment is None else environment
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        path = template.render(target, work)
        check_words(target, path)
        variables = _variables(target, work)
        if not supported(entry, version):
            check_options(target, path.read_text())
            path.write_text(_without_source(path.read_text(), entry.builder))
            packer_client.validate(path, variables, given)
            found = ".".join(map(str, version))
            return (
                f"needs Packer {entry.packer}; with {found}: the build by Packer, the source by its builder's options"
            )
        try:
            packer_client.validate(path, variables, given)
        except BuildError as error:
            if environment is None and SIGN_IN.search(str(error)):
                return "Packer accepts all of it up to signing in, which its builder does while it validates"
            raise
    return "Packer accepts it" + (" with fake credentials" if entry.credentials and environment is None else "")


@cache
def _validate_local() -> None:
    local = {"layer": "base", "inventory": "inventory", "vars_file": "variables"}
    packer_client.validate(template.PACKER / "local.pkr.hcl", local)


def fake_credentials(target: str) -> dict[str, str]:
    """Credentials of the right form that open nothing."""
    return {name: NOBODY if name.endswith("_URL") else FAKE for name in find(target).credentials}


def check_sources() -> None:
    """Check that there is a source for each target that Packer bakes, and no other.

    Raises:
        BuildError: one is missing or superfluous.
    """
    clouds = {name for name, target in manifest.load().targets.items() if target.kind == "cloud"}
    there = {path.name.removesuffix(".pkr.hcl") for path in (template.PACKER / "sources").glob("*.pkr.hcl")}
    if clouds != there:
        raise BuildError(
            f"packer/sources/ and the targets of marketplace.yaml differ: {', '.join(sorted(clouds ^ there))}",
            "add what is missing",
        )


def check_words(target: str, path: Path) -> None:
    """Check form, variables and source block of a rendered template.

    Raises:
        BuildError: it is not as `packer fmt` writes it (or no HCL), uses a variable that it does not declare or
            declares one that it does not use, or lacks what all sources have.
    """
    where = f"packer/sources/{target}.pkr.hcl"
    form = subprocess.run(["packer", "fmt", "-check", "-diff", str(path)], capture_output=True, text=True, check=False)
    if form.returncode:
        raise BuildError(f"{where}: {(form.stdout + form.stderr).strip()}", "packer fmt packer/sources")
    hcl, own = path.read_text(), template.source(target).read_text()
    declared, used = template.declared(hcl), set(re.findall(r"\bvar\.(\w+)", hcl))
    faults = [
        *(f"uses variable {name}, which it does not declare" for name in sorted(used - declared)),
        *(f"declares variable {name}, which it does not use" for name in sorted(template.declared(own) - used)),
        *(f"has no variable {name}" for name in sorted(COMMON - template.declared(own))),
    ]
    if f'source "{find(target).builder}" "image" {{' not in own:
        faults.append(f'has no block source "{find(target).builder}" "image"')
    if faults:
        raise BuildError(f"{where} {'; '.join(faults)}", f"mend {where}, then: make validate TARGET={target}")


def check_options(target: str, hcl: str) -> None:
    """Check the source block of a builder that this Packer cannot load against the builder's options.

    Raises:
        BuildError: an option is unknown, or a required one missing.
    """
    options = OPTIONS[target]
    block = _source_block(hcl, str(find(target).builder))
    # As `packer fmt` writes it: options of the block itself are indented by two.
    set_ = set(re.findall(r"^  (\w+)\s*(?:=|\{)", block, re.MULTILINE))
    faults = [f"unknown option {name}" for name in sorted(set_ - options.known)]
    faults += [f"missing option {name}" for name in sorted(options.required - set_)]
    if faults:
        raise BuildError(f"packer/sources/{target}.pkr.hcl: {'; '.join(faults)}", f"see {options.plugin}")


def _source_block(hcl: str, builder: str) -> str:
    start = hcl.index(f'source "{builder}" "image" {{')
    return hcl[start : hcl.index("\n}\n", start) + 3]


def _without_source(hcl: str, builder: str | None) -> str:
    """The template with a source of no kind in place of its own, so that Packer checks all else."""
    kept = hcl.replace(_source_block(hcl, str(builder)), STAND_IN)
    return kept.replace(f'"source.{builder}.image"', '"source.null.image"')


def _variables(target: str, work: Path) -> dict[str, str]:
    variables = {**baking.prepare(target, "cpu", work), "ansible_tags": "", "record": str(work / "record.json")}
    if target == "qemu":
        # Packer fetches the checksum of the real source to validate it.
        variables |= {"source_image": str(work / "debian.qcow2"), "source_checksum": "none"}
    return variables
