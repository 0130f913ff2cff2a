"""Checksums of an image's files, in the form of `sha256sum`, and their signature."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from aisandbox.builder import signing, tools
from aisandbox.builder.errors import BuildError

NAME = "SHA256SUMS"


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def write(folder: Path, files: Iterable[Path], known: Mapping[str, str] | None = None) -> Path:
    """Write the checksums of these files of `folder` beside them; returns that file.

    Args:
        known: digests that have been reckoned already, by file name.
    """
    known = known or {}
    target = folder / NAME
    names = sorted(path.name for path in files)
    target.write_text("".join(f"{known.get(name) or sha256(folder / name)}  {name}\n" for name in names))
    return target


def key() -> Path | None:
    """The secret key that `AISANDBOX_SIGNING_KEY` names, known to be usable; None when the user has named none.

    Raises:
        BuildError: the key or its password is missing.
    """
    named = os.environ.get(signing.KEY_VARIABLE)
    if not named:
        return None
    path = Path(named).expanduser().absolute()
    signing.check_key(path)
    return path


def sign(sums: Path, secret: Path, comment: str) -> Path:
    """Sign the checksums, and verify the signature as a user would; returns the signature.

    Raises:
        BuildError: the key's password is wrong, or the signature does not verify.
    """
    signature = signing.sign(sums, secret, comment)
    signing.verify(sums, public_key(secret))
    return signature


def public_key(secret: Path) -> str:
    """The text of the public key's file that belongs to a secret key.

    Raises:
        BuildError: the key cannot be read, or its password is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "minisign.pub"
        command = [tools.find("minisign"), "-R", "-s", str(secret), "-p", str(public)]
        password = os.environ.get(signing.PASSWORD, "")
        result = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=False)
        if result.returncode or not public.exists():
            raise BuildError(f"{secret} gives no public key", f"check {secret} and {signing.PASSWORD}")
        return public.read_text()
