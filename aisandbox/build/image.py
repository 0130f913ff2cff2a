"""Writes a baked image to files: root file system, bootable disks, manifest and build log.

Run as `unshare --mount … python -m aisandbox.build.image JOB.json`, so that the mount of the layers goes with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.build import disk
from aisandbox.build.container import OVERLAY_OPTIONS, enter_namespaces
from aisandbox.build.errors import BuildError
from aisandbox.build.layers import Layer, Store
from aisandbox.build.progress import Phases

IMAGES = manifest.REPOSITORY / "build" / "image"
EXPECTED_SECONDS = 240.0


def directory(image: Layer) -> Path:
    """Where the files of the image's flavour lie."""
    return IMAGES / image.flavour


def write_image(image: Layer, phases: Phases) -> list[Path]:
    """Write all files of the image unless they are there already; returns their paths.

    Raises:
        BuildError: a tool or disk space is missing, or writing failed.
    """
    out = directory(image)
    record = out / "manifest.json"
    if record.exists():
        facts = json.loads(record.read_text())
        files = [out / file["name"] for file in facts["files"]]
        if facts["image"] == image.id and all(path.exists() for path in files):
            phases.note("image", f"nothing changed, {out} is up to date")
            return [*files, record]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    job = out / ".job.json"
    store = Store()
    product = manifest.load().product
    job.write_text(
        json.dumps(
            {
                "lower": store.lower_directories(image),
                "name": f"{product.id}-{product.version}-{image.flavour}",
                "key": image.key,
            }
        )
    )
    command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.build.image", str(job)]
    detail = [""]
    with phases.phase("write image", EXPECTED_SECONDS, lambda: detail[0]):
        process = subprocess.Popen(
            command, cwd=manifest.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        errors: list[str] = []
        assert process.stdout and process.stderr
        reader = threading.Thread(target=lambda stream=process.stderr: errors.extend(stream), daemon=True)
        reader.start()
        for line in process.stdout:
            detail[0] = line.strip()
        if process.wait():
            reader.join()
            reason = (errors or ["no reason given"])[-1].strip()
            raise BuildError(f"the image could not be written: {reason}", "make image")
        job.unlink()
        (out / "bake.log").write_bytes(b"".join((store.path(layer) / "log").read_bytes() for layer in image.stack))
        packages = json.loads((out / ".packages.json").read_text())
        (out / ".packages.json").unlink()
        files = sorted(path for path in out.iterdir() if path.is_file())
        facts = _facts(image, store, packages, [(path, _sha256(path)) for path in files])
        record.write_text(json.dumps(facts, indent=2) + "\n")
    return [*files, record]


def _facts(image: Layer, store: Store, packages: dict[str, Any], files: list[tuple[Path, str]]) -> dict[str, Any]:
    product = manifest.load()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=manifest.REPOSITORY, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "product": product.product.id,
        "version": product.product.version,
        "flavour": image.flavour,
        "image": image.id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or None,
        "os": product.os.model_dump(),
        "layers": [{**store.info(layer), "inputs": len(layer.inputs)} for layer in image.stack],
        "locks": {path.name: _sha256(path) for path in sorted((manifest.REPOSITORY / "locks").glob("*.txt"))},
        "packages": packages,
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": digest} for path, digest in files],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def debian_packages(rootfs: Path) -> dict[str, str]:
    """Installed Debian packages and their versions."""
    blocks = (rootfs / "var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n")
    records = (HeaderParser().parsestr(block) for block in blocks if block.strip())
    return {
        str(record["Package"]): str(record["Version"])
        for record in records
        if "installed" in str(record["Status"]).split()
    }


def python_packages(environment: Path) -> dict[str, str]:
    """Distributions installed in a virtual environment and their versions."""

    def metadata() -> Iterator[tuple[str, str]]:
        for path in environment.glob("lib/python3*/site-packages/*.dist-info/METADATA"):
            record = HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))
            yield str(record["Name"]), str(record["Version"])

    return dict(sorted(metadata()))


def _write(job: dict[str, str], out: Path) -> None:
    merged = out / ".root"
    merged.mkdir(exist_ok=True)
    options = f"ro,lowerdir={job['lower']},{OVERLAY_OPTIONS}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    opt = merged / manifest.load().paths.opt.relative_to("/")
    packages = {
        "debian": debian_packages(merged),
        "python": {path.name: python_packages(path) for path in sorted((opt / "envs").iterdir()) if path.is_dir()},
    }
    (out / ".packages.json").write_text(json.dumps(packages))
    archive = out / f"{job['name']}.rootfs.tar.zst"
    print("root file system archive", flush=True)
    partial = archive.with_suffix(".partial")
    subprocess.run(
        ["tar", "--create", "--numeric-owner", "--xattrs", "--one-file-system", "--sort=name",
         "--use-compress-program=zstd -T0 -3", f"--file={partial}", "--directory", str(merged), "."],
        check=True,
    )  # fmt: skip
    partial.rename(archive)
    disk.build_disk(
        merged,
        out,
        name=job["name"],
        key=job["key"],
        progress=lambda step, done: print(f"{step} {done:.0%}", flush=True),
    )
    subprocess.run(["umount", str(merged)], check=True)
    merged.rmdir()


def main() -> None:
    path = Path(sys.argv[1])
    try:
        _write(json.loads(path.read_text()), path.parent)
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
