"""Signatures of what is released, by minisign and a key that the vendor keeps.

`minisign -G -p minisign.pub -s minisign.key` makes a pair of keys.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
from pathlib import Path

from aisandbox.builder import tools
from aisandbox.builder.errors import BuildError
from aisandbox.instance.keep.upgrade import signature
from aisandbox.instance.keep.upgrade.signature import SUFFIX, SignatureError, parse_key

__all__ = ["KEY_VARIABLE", "PASSWORD", "SUFFIX", "check_key", "sign", "verify"]

PASSWORD = "AISANDBOX_SIGNING_PASSWORD"  # noqa: S105 - the variable's name
"""Environment variable with the secret key's password; needed when the key has one."""
KEY_VARIABLE = "AISANDBOX_SIGNING_KEY"
"""Environment variable that names the secret key's file for commands that sign when there is a key."""
UNENCRYPTED = b"\0\0"
MAKE_KEY = "minisign -G -p minisign.pub -s minisign.key"


def check_key(key: Path) -> None:
    """Check, before work of minutes, that signing with this secret key can succeed. A wrong password shows later.

    Raises:
        BuildError: minisign, the key or its password is missing.
    """
    tools.find("minisign")
    try:
        lines = key.read_text().splitlines()
        algorithm = base64.b64decode(lines[1], validate=True)[2:4]
    except OSError as error:
        raise BuildError(f"the signing key {key} cannot be read: {error.strerror}", f"make one: {MAKE_KEY}") from error
    except (ValueError, IndexError, binascii.Error) as error:
        raise BuildError(f"{key} is no secret key of minisign", f"make one: {MAKE_KEY}") from error
    if algorithm != UNENCRYPTED and not os.environ.get(PASSWORD):
        raise BuildError(f"the signing key {key} has a password, and {PASSWORD} is not set", f"export {PASSWORD}=…")


def sign(path: Path, key: Path, comment: str = "") -> Path:
    """Sign a file; returns the signature, which lies beside it.

    The password is read from `AISANDBOX_SIGNING_PASSWORD` and goes to minisign by its standard input. The same file,
    key and comment give the same signature.

    Args:
        comment: one line that is signed, too, and shown whenever the signature is checked.

    Raises:
        BuildError: minisign, the key or its password is missing or wrong.
    """
    check_key(key)
    out = path.with_name(path.name + SUFFIX)
    command = ["minisign", "-S", "-s", str(key), "-m", str(path), "-x", str(out), "-t", comment or path.name]
    password = os.environ.get(PASSWORD, "")
    result = subprocess.run(command, input=f"{password}\n", capture_output=True, text=True, check=False)
    if result.returncode or not out.exists():
        said = " ".join(result.stderr.replace("Password:", "").split())
        raise BuildError(f"{path.name} could not be signed: {said or 'no reason given'}", f"check {key} and {PASSWORD}")
    return out


def verify(path: Path, public_key: str) -> None:
    """Check the signature beside a file.

    Args:
        public_key: the key's line, or the text of its file.

    Raises:
        BuildError: there is no signature, or it is not of this key and this content.
    """
    tools.find("minisign")
    try:
        signature.verify(path, path.with_name(path.name + SUFFIX), parse_key(public_key))
    except (SignatureError, ValueError) as error:
        raise BuildError(str(error), "sign it again with the right key, or name the right public key") from error
