"""Validates every Packer template with stand-in variables (`make lint`)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aisandbox.build import packer_client, qemu_builder
from aisandbox.build.machine import make_key
from aisandbox.manifest import REPOSITORY


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "seed").mkdir()
        for name in ("vars.json", "inventory.json", "disk.qcow2", "seed/meta-data", "seed/user-data"):
            (work / name).touch()
        make_key(work)
        inventory, variables = str(work / "inventory.json"), str(work / "vars.json")
        local = {"layer": "base", "inventory": inventory, "vars_file": variables}
        packer_client.validate(REPOSITORY / "packer" / "local.pkr.hcl", local)
        packer_client.validate(qemu_builder.TEMPLATE, qemu_builder.variables(work, str(work / "disk.qcow2")))


if __name__ == "__main__":
    main()
