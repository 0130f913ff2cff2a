"""Makes a release: the signed bundle from which running instances upgrade.

Run as `unshare --mount … python -m aisandbox.builder.release JOB.json`, so that the mount of the layers goes with it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder import signing, tools
from aisandbox.builder.container import OVERLAY_OPTIONS, enter_namespaces, environment
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import cache_directory
from aisandbox.builder.progress import Phases
from aisandbox.check import dpkg
from aisandbox.instance.keep.upgrade import bundle, rules, tree
from aisandbox.instance.keep.upgrade.bundle import Archive, Component, Release
from aisandbox.instance.keep.upgrade.errors import UpgradeError
from aisandbox.manifest import Manifest

RELEASES = manifest.REPOSITORY / "build" / "release"
EXPECTED_SECONDS = 240.0
OWN = "appliance"
"""The component of our own code and what belongs to it."""
OWN_PARTS = ("lib", "templates", "www", "release.json")
MEASURES = "release-measures.json"
"""In the cache: digests of components by which they need not be read twice."""
SYSTEM = "system"
"""The component of files outside `/opt/aisandbox`."""
NOT_NEEDED = ("linux-image-*", "linux-headers-*", "nvidia-*", "nvlsm", "infiniband-diags", "grub-*", "shim-signed")
"""Packages of a machine's start and of its GPUs' driver, which are the machine's own business."""


def write(
    lower: str,
    product: Manifest,
    flavour: str,
    key: Path,
    phases: Phases,
    *,
    since: Path | None = None,
    archives: bool = True,
    out: Path = RELEASES,
) -> Path:
    """Write and sign the release of an image; returns its folder.

    Args:
        lower: the image's layers, as an overlay's `lowerdir`.
        key: minisign's secret key.
        since: folder of an earlier release: what instances of that one have already is left out.
        archives: whether anything is packed; without, the release serves as `since` of later ones only.

    Raises:
        BuildError: the key, a tool or disk space is missing, or the layers hold what no release may.
    """
    signing.check_key(key)
    for tool in ("tar", "zstd"):
        tools.find(tool)
    name = f"{product.product.id}-{product.product.version}-{flavour}"
    folder, partial = out / name, out / f".{name}.partial"
    earlier = _read(since) if since else None
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        job = partial / "job.json"
        job.write_text(
            json.dumps(
                {
                    "lower": lower,
                    "head": _head(product, flavour),
                    "known": [component.digest for component in earlier.components] if earlier else [],
                    "archives": archives,
                    "packages": product.release.packages,
                }
            )
        )
        _run(job, phases)
        job.unlink()
        signing.sign(partial / bundle.MANIFEST, key, name)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _head(product: Manifest, flavour: str) -> dict[str, object]:
    """What the manifest says about the release."""
    version = product.product.version
    return {
        "product": product.product.id,
        "version": version,
        "flavour": flavour,
        "architecture": platform.machine(),
        "os": {"family": product.os.family, "version": product.os.version},
        "upgrade_from": product.release.upgrade_from,
        "notes": product.release.notes.get(version, ()),
        "ports": {name: port.port for name, port in product.ports.items()},
        "retired": product.release.retired,
    }


def _read(folder: Path) -> Release:
    try:
        return bundle.parse((folder / bundle.MANIFEST).read_bytes())
    except OSError as error:
        raise BuildError(f"{folder} holds no release: {error.strerror}", "name a folder of build/release/") from error
    except UpgradeError as error:
        raise BuildError(f"{folder}: {error}", "name a folder of build/release/") from error


def _run(job: Path, phases: Phases) -> None:
    command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.builder.release", str(job)]
    detail, errors = [""], list[str]()
    with phases.phase("write release", EXPECTED_SECONDS, lambda: detail[0]):
        process = subprocess.Popen(
            command,
            cwd=manifest.REPOSITORY,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout and process.stderr
        reader = threading.Thread(target=lambda stream=process.stderr: errors.extend(stream), daemon=True)
        reader.start()
        for line in process.stdout:
            detail[0] = line.strip()
        if process.wait():
            reader.join()
            raise BuildError(
                f"the release could not be written: {(errors or ['no reason given'])[-1].strip()}", "df -h"
            )


def components(root: Path) -> dict[str, tuple[str, ...]]:
    """The components of an image whose files lie below `root`: their names, and the paths that they own."""
    found: dict[str, list[str]] = defaultdict(list)
    opt = root / rules.OPT
    for path in sorted([*opt.glob("[!.]*"), *opt.glob("envs/[!.]*")]):
        relative = path.relative_to(opt)
        if str(relative) == "envs" or not rules.may_replace(str(path.relative_to(root))):
            continue
        if relative.parts[0] == "envs":
            name = f"env-{path.name.removesuffix('.txt')}"
        elif path.name in OWN_PARTS:
            name = OWN
        else:
            name = path.name
        found[name].append(str(path.relative_to(root)))
    found[SYSTEM] = system_files(root)
    return {name: tuple(sorted(paths)) for name, paths in sorted(found.items())}


def system_files(root: Path) -> list[str]:
    """Our files outside `/opt/aisandbox`: what no Debian package brought, and what differs from what one brought."""
    packaged = _packaged(root)
    originals = _originals(root)
    found = []
    for folder in (*rules.FOLDERS, *rules.FILES):
        for path, _ in tree.entries(root, [folder]):
            file = root / path
            if file.is_symlink():
                ours = path.startswith(rules.UNITS) and str(file.readlink()).startswith(f"/{rules.UNITS}/")
            elif file.is_dir() or file.stat().st_size == 0:
                ours = False
            elif path in originals:
                ours = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() != originals[path]
            else:
                ours = path not in packaged and not fnmatch(path, "*/*dpkg*")
            if ours:
                found.append(path)
    return found


def _packaged(root: Path) -> frozenset[str]:
    """All paths, relative to `root`, that Debian packages brought."""
    lists = sorted((root / "var/lib/dpkg/info").glob("*.list"))
    return frozenset(line.lstrip("/") for path in lists for line in path.read_text(errors="replace").splitlines())


def _originals(root: Path) -> dict[str, str]:
    """Configuration files of packages, and the MD5 of each as the package brought it."""
    listed = (record.get("Conffiles", "").splitlines() for record in _records(root / dpkg.STATUS))
    files = (line.split() for lines in listed for line in lines)
    return {parts[0].lstrip("/"): parts[1] for parts in files if len(parts) >= 2}


def packages(root: Path, system: Path, minimum: Mapping[str, str]) -> dict[str, str]:
    """Debian packages that roles installed, with the oldest version that will do, if that matters.

    Args:
        system: root of the minimal system below, whose packages every instance has.
    """
    automatic = {
        record["Package"]
        for record in _records(root / "var/lib/apt/extended_states")
        if record.get("Auto-Installed") == "1"
    }
    wanted = _installed(root) - _installed(system) - automatic
    wanted = {name for name in wanted if not any(fnmatch(name, pattern) for pattern in NOT_NEEDED)}
    return {name: minimum.get(name, "") for name in sorted(wanted | set(minimum))}


def _installed(root: Path) -> set[str]:
    return {record["Package"] for record in _records(root / dpkg.STATUS) if dpkg.installed(record)}


def _records(path: Path) -> Iterator[dict[str, str]]:
    return dpkg.paragraphs(path.read_text(errors="replace") if path.exists() else "")


def _write(job: dict[str, object], out: Path) -> None:
    root = out / ".root"
    root.mkdir()
    options = f"ro,lowerdir={job['lower']},{OVERLAY_OPTIONS}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    known, head, minimum = job["known"], job["head"], job["packages"]
    assert isinstance(known, list) and isinstance(head, dict) and isinstance(minimum, dict)
    memory = tree.Memory(cache_directory() / MEASURES)
    found = []
    for name, paths in components(root).items():
        print(f"reading {name}", flush=True)
        measured = memory.measure(f"{head['flavour']} {name}", root, paths)
        component = Component(name, paths, measured.digest, measured.bytes, measured.entries, None)
        if job["archives"] and measured.digest not in known:
            print(f"packing {name}", flush=True)
            component = replace(component, archive=pack(root, paths, out / component.file))
        found.append(component)
    memory.keep()
    system = Path(str(job["lower"]).rpartition(":")[2])
    release = Release(**head, packages=packages(root, system, minimum), components=tuple(found))
    # What an instance would refuse is not released.
    bundle.parse(release.to_json())
    (out / bundle.MANIFEST).write_text(release.to_json(), encoding="utf-8")
    subprocess.run(["umount", str(root)], check=True)
    root.rmdir()


def pack(root: Path, paths: Sequence[str], archive: Path) -> Archive:
    """Pack a component; the same files give the same archive.

    Raises:
        BuildError: it holds what no release may.
        OSError, subprocess.CalledProcessError: the disk is full, …
    """
    names = []
    for path, status in tree.entries(root, paths):
        link = root / path
        reason = (
            rules.refusal_of_link(path, str(link.readlink()))
            if link.is_symlink()
            else rules.refusal_of_mode(status.st_mode)
        )
        if reason:
            raise BuildError(f"/{path} {reason}: instances would refuse it", "mend the role that installs it")
        names.append(path)
    listing = archive.with_suffix(".names")
    listing.write_bytes(b"\0".join(name.encode() for name in names) + b"\0")
    subprocess.run(
        ["tar", "--create", "--format=gnu", "--no-recursion", "--numeric-owner", "--hard-dereference",
         f"--directory={root}", "--null", f"--files-from={listing}", "--use-compress-program=zstd -T0 -3 --quiet",
         f"--file={archive}"],
        check=True,
    )  # fmt: skip
    listing.unlink()
    return Archive(tree.file_digest(archive), archive.stat().st_size)


def main() -> None:
    path = Path(sys.argv[1])
    try:
        _write(json.loads(path.read_text()), path.parent)
    except (BuildError, UpgradeError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
