"""Pairs of minisign keys for tests."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from aisandbox.instance.upgrade import signature


@dataclass(frozen=True)
class Pair:
    secret: Path
    public: Path

    @property
    def line(self) -> str:
        """The public key alone."""
        return signature.read_key(self.public)


def make(folder: Path, password: str = "") -> Pair:
    """A fresh pair in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "minisign.key", folder / "minisign.pub")
    command = ["minisign", "-G", "-f", "-s", str(pair.secret), "-p", str(pair.public), *([] if password else ["-W"])]
    answers = f"{password}\n{password}\n" if password else ""
    subprocess.run(command, input=answers, text=True, capture_output=True, check=True)
    return pair
