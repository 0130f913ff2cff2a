"""Writes a baked image to files: root file system, bootable disks, SBOMs, licences, manifest, checksums and build log.

Run as `unshare --mount … python -m aisandbox.builder.image JOB.json`, so that the mount of the layers goes with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.builder import disk, kernels
from aisandbox.builder.container import enter_namespaces
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Layer, Store
from aisandbox.builder.overlay import read_only
from aisandbox.builder.progress import Phases
from aisandbox.builder.supply import checksums, documents, provenance, source
from aisandbox.builder.supply.inventory import Inventory

IMAGES = manifest.REPOSITORY / "build" / "image"
EXPECTED_SECONDS = 240.0
RECORD = "manifest.json"


def directory(image: Layer) -> Path:
    """Where the files of the image's flavour lie."""
    return IMAGES / image.flavour


def write_image(image: Layer, phases: Phases) -> list[Path]:
    """Write all files of the image unless they are there already; returns their paths.

    They are signed when `AISANDBOX_SIGNING_KEY` names a key.

    Raises:
        BuildError: a tool, the signing key or disk space is missing, a licence is refused, or writing failed.
    """
    started = datetime.now(UTC)
    out = directory(image)
    key = checksums.key()
    known = _known(image, out)
    if known:
        phases.note("image", f"nothing changed, {out} is up to date")
        return [*known, *_sign(image, out, key)]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    store, code = Store(), source.read()
    lower = store.lower_directories(image)
    inventory = documents.of_layers(lower, name_of(image), out, code, phases)
    detail = [""]
    with phases.phase("write image", EXPECTED_SECONDS, lambda: detail[0]):
        _write_files(image, lower, out, detail)
        (out / "bake.log").write_bytes(b"".join((store.path(layer) / "log").read_bytes() for layer in image.stack))
        digests = {path.name: checksums.sha256(path) for path in sorted(out.iterdir()) if path.is_file()}
        record = out / RECORD
        record.write_text(json.dumps(_facts(image, out, digests, inventory, code, started), indent=2) + "\n")
        files = [out / name for name in digests]
        checksums.write(out, [*files, record], digests)
    return [*files, record, out / checksums.NAME, *_sign(image, out, key)]


def name_of(image: Layer) -> str:
    """What the image is called, such as `aisandbox-0.1.0-cpu`."""
    product = manifest.load().product
    return f"{product.id}-{product.version}-{image.flavour}"


def _known(image: Layer, out: Path) -> list[Path]:
    """The files that were written of this image, when all are there."""
    record, sums = out / RECORD, out / checksums.NAME
    if not (record.exists() and sums.exists()):
        return []
    facts = json.loads(record.read_text())
    files = [*(out / file["name"] for file in facts["files"]), record, sums]
    return files if facts["image"] == image.id and all(path.exists() for path in files) else []


def _sign(image: Layer, out: Path, key: Path | None) -> list[Path]:
    return [checksums.sign(out / checksums.NAME, key, f"{name_of(image)} {image.id}")] if key else []


def _write_files(image: Layer, lower: str, out: Path, detail: list[str]) -> None:
    job = out / ".job.json"
    job.write_text(json.dumps({"lower": lower, "name": name_of(image), "key": image.key}))
    command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.builder.image", str(job)]
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


def _facts(
    image: Layer, out: Path, digests: dict[str, str], inventory: Inventory, code: source.Source, started: datetime
) -> dict[str, Any]:
    product, store, finished = manifest.load(), Store(), datetime.now(UTC)
    layers = [{**store.info(layer), "inputs": len(layer.inputs)} for layer in image.stack]
    return {
        "product": product.product.id,
        "version": product.product.version,
        "flavour": image.flavour,
        "image": image.id,
        "created": finished.isoformat(timespec="seconds"),
        "commit": code.commit,
        "os": product.os.model_dump(),
        **documents.platform(inventory),
        "layers": layers,
        "locks": provenance.locks(),
        **({"flashinfer_kernels": kernels.version(inventory)} if image.flavour == "cuda" else {}),
        "packages": documents.packages(inventory),
        "files": [
            {"name": name, "bytes": (out / name).stat().st_size, "sha256": digest} for name, digest in digests.items()
        ],
        "provenance": provenance.statement(
            subjects=digests,
            parameters={"product": product.product.id, "version": product.product.version, "flavour": image.flavour},
            layers=layers,
            inventory=inventory,
            source=code,
            started=started,
            finished=finished,
        ),
    }


def _write(job: dict[str, str], out: Path) -> None:
    with read_only(job["lower"], out / ".root") as merged:
        _write_archive(job, out, merged)
        disk.build_disk(
            merged,
            out,
            name=job["name"],
            key=job["key"],
            progress=lambda step, done: print(f"{step} {done:.0%}", flush=True),
        )


def _write_archive(job: dict[str, str], out: Path, merged: Path) -> None:
    archive = out / f"{job['name']}.rootfs.tar.zst"
    print("root file system archive", flush=True)
    partial = archive.with_suffix(".partial")
    subprocess.run(
        ["tar", "--create", "--numeric-owner", "--xattrs", "--one-file-system", "--sort=name",
         "--use-compress-program=zstd -T0 -3", f"--file={partial}", "--directory", str(merged), "."],
        check=True,
    )  # fmt: skip
    partial.rename(archive)


def main() -> None:
    path = Path(sys.argv[1])
    try:
        _write(json.loads(path.read_text()), path.parent)
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
