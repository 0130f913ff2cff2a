"""The user-data of listings, judged by the cloud-init of the image: `cloud-init schema`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from aisandbox import manifest as manifests
from aisandbox.builder import listing
from aisandbox.builder.bake import bake
from aisandbox.builder.layers import Store
from aisandbox.builder.listing.formats import VENDOR_PART
from aisandbox.builder.progress import Phases

MANIFEST = manifests.load()
Schema = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def schema() -> Schema:
    """Runs the image's own `cloud-init schema` on a text, in an overlay that goes with its mount namespace."""
    with Phases() as phases:
        lower = Store().lower_directories(bake("cpu", phases, "machine"))

    def run(text: str) -> subprocess.CompletedProcess[str]:
        enter = (
            "set -e; mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work /mnt/root;"
            f"mount -t overlay overlay -o lowerdir={lower},upperdir=/mnt/upper,workdir=/mnt/work /mnt/root;"
            "cat >/mnt/root/user-data; exec chroot /mnt/root cloud-init schema --config-file /user-data"
        )
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", enter]
        return subprocess.run(command, input=text, capture_output=True, text=True)

    return run


def texts() -> dict[str, str]:
    """Every kind of user-data in the listings, as it is and with all choices made."""
    plain = listing.files(MANIFEST, "digitalocean")["user-data.yaml"]
    keys = "|".join(MANIFEST.options_by_key)
    vendor = listing.files(MANIFEST, "vultr")["imageless.txt"].partition(VENDOR_PART)[0]
    filled = re.sub(rf"^  # (({keys}): )", r"  \1", plain, flags=re.MULTILINE)
    return {"plain": plain, "filled": filled, "vendor": vendor}


@pytest.mark.parametrize("kind", ["plain", "filled", "vendor"])
def test_cloud_init_accepts_the_user_data_of_listings(schema: Schema, kind: str) -> None:
    done = schema(texts()[kind])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout


def test_cloud_init_refuses_what_is_wrong(schema: Schema, tmp_path: Path) -> None:
    done = schema("#cloud-config\nssh_pwauth: [1]\n")
    assert done.returncode != 0
    assert "ssh_pwauth" in done.stdout + done.stderr
