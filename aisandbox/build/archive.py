"""The sandbox's container image, made of baked layers, in the forms that Docker and podman read.

The image has two layers. The first is everything but our own source, so that a change of the source changes only the
second, which is small.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aisandbox import manifest
from aisandbox.build.bake import bake
from aisandbox.build.container import OVERLAY_OPTIONS, enter_namespaces, environment
from aisandbox.build.errors import BuildError
from aisandbox.build.layers import Layer, Store, cache_directory, load
from aisandbox.build.progress import Phases

FLAVOUR = "cpu"
"""The sandbox uses no GPU."""
BASE, SOURCE = "container", "sandbox"
NAME = f"localhost/{manifest.load().product.id}-sandbox"
SECOND = 1_000_000_000
EXPECTED_SECONDS = 20.0
BLOCK = 2**20


@dataclass(frozen=True)
class Blob:
    """A layer's tar and its SHA-256."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """The baked layers that an image is made of; `reference` names the image, and changes with its content."""

    base: Layer
    source: Layer

    @property
    def reference(self) -> str:
        key = hashlib.sha256(f"{self.base.key}{self.source.key}{_own_digest()}".encode()).hexdigest()[:12]
        return f"{NAME}:{key}"


def _own_digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def bake_image(phases: Phases) -> Image:
    """Bake what is missing of the container's layers.

    Raises:
        BuildError: a layer could not be baked.
    """
    bake(FLAVOUR, phases, BASE)
    bake(FLAVOUR, phases, SOURCE)
    layers = load(FLAVOUR)
    return Image(layers[BASE], layers[SOURCE])


def write(image: Image, path: Path, phases: Phases) -> None:
    """Write the image as a Docker archive, which `docker load` and `podman load` read.

    Raises:
        BuildError: the layers could not be read, or the disk is full.
    """
    config, layers = _parts(image, phases)
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [image.reference, f"{NAME}:latest"]
    listing = [{"Config": config_name, "RepoTags": names, "Layers": [f"{layer.digest}.tar" for layer in layers]}]
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with phases.phase("write archive", EXPECTED_SECONDS), tarfile.open(partial, "w") as archive:
        for layer in layers:
            archive.add(layer.path, f"{layer.digest}.tar")
        for name, content in ((config_name, config), ("manifest.json", json.dumps(listing).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    partial.rename(path)


def write_folder(image: Image, folder: Path, phases: Phases) -> None:
    """Lay the image out for `podman pull dir:FOLDER`: links to the layers, none of which is copied.

    Raises:
        BuildError: the layers could not be read, or the disk is full.
    """
    config, layers = _parts(image, phases)
    config_digest = hashlib.sha256(config).hexdigest()
    kind = "application/vnd.docker"
    listing = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.distribution.manifest.v2+json",
        "config": {
            "mediaType": f"{kind}.container.image.v1+json",
            "size": len(config),
            "digest": f"sha256:{config_digest}",
        },
        "layers": [
            {
                "mediaType": f"{kind}.image.rootfs.diff.tar",
                "size": layer.path.stat().st_size,
                "digest": f"sha256:{layer.digest}",
            }
            for layer in layers
        ],
    }
    folder.mkdir(parents=True)
    (folder / "version").write_text("Directory Transport Version: 1.1\n")
    (folder / config_digest).write_bytes(config)
    (folder / "manifest.json").write_text(json.dumps(listing))
    for layer in layers:
        (folder / layer.digest).symlink_to(layer.path)


def _parts(image: Image, phases: Phases) -> tuple[bytes, list[Blob]]:
    """The image's configuration, and its layers, lowest first."""
    store = Store()
    with phases.phase("pack container image", EXPECTED_SECONDS):
        base = _blob(image.base.id, store.lower_directories(image.base))
        # Its files alone; `sandbox` removes none, so there is nothing to translate.
        source = _blob(image.source.id, str(store.rootfs(image.source)))
    said = store.rootfs(image.base) / manifest.load().paths.opt.relative_to("/") / "container" / "image.json"
    layers = [base, source]
    return json.dumps(configuration(json.loads(said.read_text()), layers)).encode(), layers


def configuration(said: dict[str, Any], layers: list[Blob]) -> dict[str, Any]:
    """Docker's configuration of the image, from what the role `container` says."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "config": {
            "User": said["user"],
            "Env": [f"{name}={value}" for name, value in said["environment"].items()],
            "Entrypoint": said["entrypoint"],
            "WorkingDir": said["working_directory"],
            "ExposedPorts": {f"{said['port']}/tcp": {}},
            "Volumes": {path: {} for path in said["volumes"]},
            "Labels": said["labels"],
            "StopSignal": "SIGTERM",
            "Healthcheck": {
                "Test": ["CMD-SHELL", said["healthcheck"]],
                "Interval": 30 * SECOND,
                "Timeout": 10 * SECOND,
                "StartPeriod": 30 * SECOND,
                "Retries": 3,
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.digest}" for layer in layers]},
        "history": [{"created_by": manifest.load().product.name} for _ in layers],
    }


def _blob(name: str, lower: str) -> Blob:
    """The files of these directories, uppermost first, as one tar; kept in the cache under this name."""
    folder = cache_directory() / "container"
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / f"{name}.tar", folder / f"{name}.sha256"
    if not (path.exists() and digest.exists()):
        for old in folder.glob(f"{name.rsplit('-', 1)[0]}-*"):
            old.unlink()
        command = [*enter_namespaces(), sys.executable, "-m", "aisandbox.build.archive", lower, str(path)]
        result = subprocess.run(
            command, cwd=manifest.REPOSITORY, env=environment(), capture_output=True, text=True, check=False
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BuildError(f"the container image could not be written: {reason}", f"check the disk: df -h {folder}")
        digest.write_text(result.stdout.strip())
    return Blob(path, digest.read_text())


def _pack(lower: str, path: Path) -> str:
    """Write the tar and return its SHA-256. Runs in namespaces of its own, so that the mount goes with it."""
    root = Path(lower)
    if ":" in lower:
        root = path.with_suffix(".root")
        root.mkdir(exist_ok=True)
        options = f"ro,lowerdir={lower},{OVERLAY_OPTIONS}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True)
    # The engine brings these.
    command = ["tar", "--create", "--numeric-owner", "--sort=name", "--one-file-system", "--anchored"]
    command += [f"--exclude=./{place}/*" for place in ("dev", "proc", "sys", "tmp")]
    digest, partial = hashlib.sha256(), path.with_suffix(".partial")
    with subprocess.Popen([*command, "--directory", str(root), "."], stdout=subprocess.PIPE) as process:
        assert process.stdout
        with partial.open("wb") as output:
            while block := process.stdout.read(BLOCK):
                digest.update(block)
                output.write(block)
    if process.returncode:
        raise BuildError(f"tar failed with status {process.returncode}", "see the message above")
    partial.rename(path)
    if root != Path(lower):
        subprocess.run(["umount", str(root)], check=True)
        root.rmdir()
    return digest.hexdigest()


if __name__ == "__main__":
    print(_pack(sys.argv[1], Path(sys.argv[2])))
