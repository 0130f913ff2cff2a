"""minisign's signatures and public keys."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

SUFFIX = ".minisig"
KEY = re.compile(r"RW[A-Za-z0-9+/]{54}")
LONGEST_KEY_FILE = 4096
LONGEST_SIGNATURE = 4096


class SignatureError(Exception):
    """The signature is not that of the key, or there is none."""


def parse_key(text: str) -> str:
    """The key in the text of a public key file, or in one line that holds nothing else.

    Raises:
        ValueError: it holds no key.
    """
    last = ([line.strip() for line in text.strip().splitlines() if line.strip()] or [""])[-1]
    if not KEY.fullmatch(last):
        raise ValueError("this is no public key of minisign")
    return last


def read_key(path: Path) -> str:
    """The key in a public key file, such as minisign.pub.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no key.
    """
    with path.open("rb") as file:
        content = file.read(LONGEST_KEY_FILE)
    return parse_key(content.decode(errors="replace"))


def verify(path: Path, signature: Path, public_key: str) -> None:
    """Check that the key's owner has signed the file.

    Raises:
        FileNotFoundError: minisign is not installed.
        SignatureError: nobody has, or somebody else, or the file was changed since.
    """
    if not signature.is_file():
        raise SignatureError(f"{path.name} has no signature ({signature.name})")
    command = ["minisign", "-V", "-q", "-P", public_key, "-x", str(signature), "-m", str(path)]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        words = " ".join(result.stderr.split()) or "the signature does not fit"
        raise SignatureError(f"{path.name}: {words}")
