"""What a bake in a virtual machine of this host needs beside what every target needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from aisandbox.builder import qemu, seed
from aisandbox.builder.errors import BuildError
from aisandbox.builder.image import IMAGES

OUTPUT = IMAGES / "qemu" / "disk"


def begin() -> None:
    """Check that virtual machines run at full speed here, and remove the last bake, as Packer wants it.

    Raises:
        BuildError: they do not.
    """
    if not qemu.kvm_works():
        raise BuildError(
            "KVM does not work on this host (a probe guest did not run), and without it a bake takes hours",
            "use the local builder, which needs none: make image",
        )
    shutil.rmtree(OUTPUT, ignore_errors=True)


def variables(work: Path, user_data: str, chosen: dict[str, str]) -> dict[str, str]:
    """Variables of its template that depend on this host; `work` gets the seed."""
    directory = work / "seed"
    seed.write_seed_dir(directory, instance_id="bake", hostname="bake", user_data=user_data)
    # Packer knows the checksum of Debian's own image only.
    checksum = {"source_checksum": "none"} if "source_image" in chosen else {}
    return {"seed_directory": str(directory), "output_directory": str(OUTPUT), **checksum}
