"""Pairs of minisign keys for tests."""

from __future__ import annotations

import base64
import hashlib
import secrets
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from aisandbox.instance.keep.upgrade import signature


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
    command = ["minisign", "-G", "-f", "-W", "-s", str(pair.secret), "-p", str(pair.public)]
    subprocess.run(command, text=True, capture_output=True, check=True)
    if password:
        _protect(pair.secret, password)
    return pair


def _protect(secret: Path, password: str) -> None:
    """Encrypt a secret key as `minisign -C` does, with the least work that the format can ask of who opens it.

    By itself minisign asks for seconds and a gigabyte. Format: https://jedisct1.github.io/minisign/
    """
    comment, encoded = secret.read_text().splitlines()
    key = base64.b64decode(encoded)
    algorithm, hashing, pair = key[:2], key[4:6], key[54:126]
    plain = pair + hashlib.blake2b(algorithm + pair, digest_size=32).digest()
    salt, operations, memory = secrets.token_bytes(32), 32768, 2**24
    stream = hashlib.scrypt(password.encode(), salt=salt, n=operations // 32, r=8, p=1, dklen=len(plain))
    hidden = bytes(a ^ b for a, b in zip(plain, stream, strict=True))
    key = algorithm + b"Sc" + hashing + salt + struct.pack("<QQ", operations, memory) + hidden
    secret.write_text(f"{comment}\n{base64.b64encode(key).decode()}\n")
