"""Container images, made of baked layers, in the forms that Docker and podman read.

An image has layers of its own, its parts. What seldom changes lies in parts of its own, so that a change of the source
changes only what is small; no part holds what another one hides.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from aisandbox import manifest
from aisandbox.builder.bake import bake
from aisandbox.builder.container import enter_namespaces, environment
from aisandbox.builder.errors import BuildError
from aisandbox.builder.layers import Layer, Store, cache_directory, load
from aisandbox.builder.overlay import read_only
from aisandbox.builder.progress import Phases
from aisandbox.builder.supply import documents

FLAVOUR = "cpu"
"""The sandbox uses no GPU."""
BASE, SOURCE = "container", "sandbox"
PRODUCT = manifest.load().product.id
NAME = f"localhost/{PRODUCT}-sandbox"
SECOND = 1_000_000_000
EXPECTED_SECONDS = 20.0
COMPRESS_SECONDS = 60.0
BLOCK = 2**20
BROUGHT = ("dev", "proc", "sys", "tmp")
"""What is in these folders, the engine brings."""


@dataclass(frozen=True)
class Part:
    """One layer of an image: files of these directories, seen through an overlay, uppermost first.

    `name` names its content, and what is kept of it in the cache. Paths are relative to the root.
    """

    name: str
    lower: str
    only: tuple[str, ...] = ()
    """Nothing but what lies below these paths; empty takes all."""
    without: tuple[str, ...] = ()
    """All but what lies below these paths."""
    changed: tuple[str, ...] = ()
    """Of those, directories of an overlay whose own files are taken all the same."""


@dataclass(frozen=True)
class Blob:
    """A part's tar and its SHA-256."""

    path: Path
    digest: str


@dataclass(frozen=True)
class Image:
    """An image of that name, made of parts, lowest first. `reference` also changes with its content."""

    name: str
    parts: tuple[Part, ...]
    said: Path
    """What the role `container` says of the image."""

    @property
    def reference(self) -> str:
        key = hashlib.sha256("".join((*(part.name for part in self.parts), _own_digest())).encode()).hexdigest()[:12]
        return f"{self.name}:{key}"

    @property
    def lower(self) -> str:
        """Directories of all parts as for an overlay, uppermost first."""
        return ":".join(dict.fromkeys(path for part in reversed(self.parts) for path in part.lower.split(":")))

    @property
    def latest(self) -> str:
        return f"{self.name}:latest"


def _own_digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def said_by(layer: Layer) -> Path:
    """Where that layer says what its image is to be."""
    return Store().rootfs(layer) / manifest.load().paths.opt.relative_to("/") / "container" / "image.json"


def bake_image(phases: Phases) -> Image:
    """Bake what is missing of the sandbox's layers.

    Raises:
        BuildError: a layer could not be baked.
    """
    bake(FLAVOUR, phases, BASE)
    bake(FLAVOUR, phases, SOURCE)
    layers, store = load(FLAVOUR), Store()
    base, source = layers[BASE], layers[SOURCE]
    # The source's files alone; that layer removes none, so there is nothing to translate.
    parts = (Part(base.id, store.lower_directories(base)), Part(source.id, str(store.rootfs(source))))
    return Image(NAME, parts, said_by(base))


def write(image: Image, path: Path, phases: Phases, *, compressed: bool = False) -> None:
    """Write the image as a Docker archive, which `docker load` and `podman load` read; SBOMs and licences beside it.

    Args:
        compressed: compress the layers, for people who copy the archive.

    Raises:
        BuildError: the layers could not be read, a licence is refused, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    documents.write_for_container(image.lower, image.reference.rsplit("/", 1)[-1], path, phases)
    config, layers = _parts(image, phases)
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [image.reference, image.latest]
    files = {f"{layer.digest}.tar": layer.path for layer in layers}
    if compressed:
        with phases.phase("compress", COMPRESS_SECONDS):
            files = {f"{name}.gz": _compressed(file) for name, file in files.items()}
    listing = [{"Config": config_name, "RepoTags": names, "Layers": list(files)}]
    partial = path.with_name(f".{path.name}.partial")
    with phases.phase("write archive", EXPECTED_SECONDS), tarfile.open(partial, "w") as archive:
        for name, file in files.items():
            archive.add(file, name)
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
    with phases.phase("pack container image", EXPECTED_SECONDS):
        layers = [_blob(part) for part in image.parts]
    return json.dumps(configuration(json.loads(image.said.read_text()), layers)).encode(), layers


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
            "ExposedPorts": {f"{port}/tcp": {} for port in said["ports"]},
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


def _blob(part: Part) -> Blob:
    """The part's files as one tar; kept in the cache under its name."""
    folder = cache_directory() / "container"
    folder.mkdir(parents=True, exist_ok=True)
    path, digest = folder / f"{part.name}.tar", folder / f"{part.name}.sha256"
    if not (path.exists() and digest.exists()):
        for old in folder.glob(f"{part.name.rsplit('-', 1)[0]}-*"):
            old.unlink()
        command = [
            *enter_namespaces(),
            sys.executable,
            "-m",
            "aisandbox.builder.archive",
            json.dumps(asdict(part)),
            str(path),
        ]
        result = subprocess.run(
            command, cwd=manifest.REPOSITORY, env=environment(), capture_output=True, text=True, check=False
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BuildError(f"the container image could not be written: {reason}", f"check the disk: df -h {folder}")
        digest.write_text(result.stdout.strip())
    return Blob(path, digest.read_text())


def _compressed(path: Path) -> Path:
    """The tar compressed; kept in the cache beside it."""
    target = path.with_suffix(".tar.gz")
    if not target.exists():
        partial = path.with_suffix(".gz.partial")
        with partial.open("wb") as output:
            result = subprocess.run(["gzip", "--fast", "--no-name", "--stdout", path], stdout=output, check=False)
        if result.returncode:
            raise BuildError("the container image could not be compressed", f"check the disk: df -h {path.parent}")
        partial.rename(target)
    return target


def _pack(part: Part, path: Path) -> str:
    """Write the tar and return its SHA-256. Runs in namespaces of its own, so that the mount goes with it."""
    options = ["--numeric-owner", "--no-recursion", "--null"]
    digest, partial = hashlib.sha256(), path.with_suffix(".partial")
    with read_only(part.lower, path.with_suffix(".root")) as root:
        with tempfile.TemporaryFile() as names, partial.open("wb") as output:
            names.write(b"\0".join(os.fsencode(name) for name in members(root, part)))
            names.seek(0)
            # It has an effect on what comes after it only.
            command = ["tar", "--create", *options, "--directory", str(root), "--files-from=-"]
            with subprocess.Popen(command, stdin=names, stdout=subprocess.PIPE) as process:
                assert process.stdout
                while block := process.stdout.read(BLOCK):
                    digest.update(block)
                    output.write(block)
        if process.returncode:
            raise BuildError(f"tar failed with status {process.returncode}", "see the message above")
        partial.rename(path)
    return digest.hexdigest()


def members(root: Path, part: Part) -> Iterator[str]:
    """What a part holds, each folder before what is in it, in an order that depends on the names alone.

    Raises:
        BuildError: a layer removes what another part holds.
    """
    yield "."
    for top in part.only:
        yield from (f"./{folder}" for folder in reversed(PurePosixPath(top).parents) if folder.name)
        yield f"./{top}"
    own: set[str] = set()
    for folder in part.changed:
        for top in part.without:
            own.update(_own(Path(folder), top))
    for start in part.only or ("",):
        for at, folders, files in os.walk(root / start):
            inside = Path(at).relative_to(root)
            folders.sort()
            for name in sorted((*folders, *files)):
                yield f"./{inside / name}"
            if str(inside) == ".":
                for name in set(folders) & set(BROUGHT):
                    folders.remove(name)
            for name in [
                name for name in folders if str(inside / name) in part.without or (root / inside / name).is_symlink()
            ]:
                folders.remove(name)
    yield from sorted(own)


def _own(layer: Path, top: str) -> Iterator[str]:
    """What a layer itself has below a path."""
    for at, folders, files in os.walk(layer / top):
        inside = Path(at).relative_to(layer)
        for name in (*folders, *files):
            found = (layer / inside / name).lstat()
            if stat.S_ISCHR(found.st_mode):
                raise BuildError(
                    f"a layer removes {inside / name}, which another part of the image holds", f"ls -l {layer / inside}"
                )
            yield f"./{inside / name}"


def _told(text: str) -> Part:
    """A part that came as JSON."""
    told: dict[str, Any] = json.loads(text)
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Part(**values)


if __name__ == "__main__":
    print(_pack(_told(sys.argv[1]), Path(sys.argv[2])))
