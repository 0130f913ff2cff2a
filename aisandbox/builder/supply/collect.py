"""Makes the inventory of layers. Run as `unshare --mount … python -m aisandbox.builder.supply.collect LOWER OUT`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from aisandbox import manifest
from aisandbox.builder.container import enter_namespaces, environment
from aisandbox.builder.errors import BuildError
from aisandbox.builder.overlay import read_only
from aisandbox.builder.supply import debian, distributions, licences, npm, ours
from aisandbox.builder.supply.inventory import Inventory, clean, merged, mirrors
from aisandbox.check.tree import Tree

EXPECTED_SECONDS = 12.0


def of_root(root: Path, commit: str | None = None) -> Inventory:
    """The inventory of a root file system."""
    tree, product = Tree(root), manifest.load().product
    found = [debian.read(tree), distributions.read(tree), npm.read(tree), ours.read(tree, commit or "")]
    packages = merged(package for part in found for package in part.packages)
    used = {name for package in packages for name in licences.symbols(package.licence)}
    texts = {name: text for part in found for name, text in part.texts.items()}
    return Inventory(
        name=product.id,
        version=product.version,
        packages=packages,
        texts={name: text for name, text in sorted(texts.items()) if name in used},
        problems=tuple(sorted({clean(problem) for part in found for problem in part.problems})),
        mirrors=mirrors(tree),
    )


def of_layers(lower: str, commit: str | None = None) -> Inventory:
    """The inventory of stacked layers.

    Args:
        lower: their directories as for an overlay, uppermost first.

    Raises:
        BuildError: they could not be read.
    """
    with tempfile.TemporaryDirectory(prefix="aisandbox-inventory-") as folder:
        out = Path(folder) / "inventory.json"
        command = [*enter_namespaces(), sys.executable, "-m", __name__, lower, str(out), commit or ""]
        result = subprocess.run(
            command, cwd=manifest.REPOSITORY, env=environment(), capture_output=True, text=True, check=False
        )
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BuildError(f"the layers could not be listed: {reason}", "run it as root: sudo make image")
        return Inventory.from_json(json.loads(out.read_text()))


def main() -> None:
    lower, out, commit = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    try:
        with read_only(lower, out.with_suffix(".root")) as root:
            out.write_text(json.dumps(of_root(root, commit).to_json()))
    except (BuildError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
