"""Checksums of files, and minisign's signature of them with a key that the user brings.

The key is a file that `AISANDBOX_SIGNING_KEY` names; the password of an encrypted one is `AISANDBOX_SIGNING_PASSWORD`.
The password reaches minisign by its standard input, and no log or command line.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aisandbox.build.errors import BuildError

KEY_VARIABLE = "AISANDBOX_SIGNING_KEY"
PASSWORD_VARIABLE = "AISANDBOX_SIGNING_PASSWORD"  # noqa: S105 - the variable's name
SUMS = "SHA256SUMS"
SUFFIX = ".minisig"
PATIENCE = 120.0
"""Seconds; a password is stretched on purpose."""


@dataclass(frozen=True)
class SigningKey:
    """A minisign secret key. Its password is never shown."""

    path: Path
    password: str | None = field(default=None, repr=False)


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def key_from_environment(environment: Mapping[str, str] = os.environ) -> SigningKey | None:
    """The key that the user has named; None when there is none.

    Raises:
        BuildError: the file cannot be read.
    """
    name = environment.get(KEY_VARIABLE)
    return signing_key(Path(name), environment) if name else None


def signing_key(path: Path, environment: Mapping[str, str] = os.environ) -> SigningKey:
    """The key in this file, with the password of the environment.

    Raises:
        BuildError: the file cannot be read.
    """
    path = path.expanduser().absolute()
    try:
        path.read_bytes()
    except OSError as error:
        raise BuildError(
            f"the signing key {path} cannot be read: {error.strerror}",
            f"make one: minisign -G -s {path} -p {path.with_suffix('.pub').name}",
        ) from error
    return SigningKey(path, environment.get(PASSWORD_VARIABLE))


def write_sums(folder: Path, files: Iterable[Path], known: Mapping[str, str] | None = None) -> Path:
    """Write the SHA-256 of these files of `folder`, as `sha256sum` does; returns the file.

    Args:
        known: digests that have been reckoned already, by file name.
    """
    known = known or {}
    target = folder / SUMS
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    target.write_text("".join(f"{known.get(name) or sha256(folder / name)}  {name}\n" for name in names))
    return target


def sign(path: Path, key: SigningKey, comment: str) -> Path:
    """Sign the file, check the signature, and return the file beside it that holds it.

    Args:
        comment: one line that the signature vouches for, too.

    Raises:
        BuildError: minisign is missing, the key is none or its password is wrong.
    """
    signature = path.with_name(path.name + SUFFIX)
    partial = signature.with_name(f".{signature.name}.partial")
    try:
        _minisign(["-S", "-s", str(key.path), "-m", str(path), "-x", str(partial), "-t", comment], key)
        with tempfile.TemporaryDirectory() as folder:
            public = Path(folder) / "key.pub"
            _minisign(["-R", "-s", str(key.path), "-p", str(public)], key)
            verify(path, public, partial)
        partial.rename(signature)
    finally:
        partial.unlink(missing_ok=True)
    return signature


def public_key(key: SigningKey) -> str:
    """The public key that belongs to a secret one: the line that `minisign -P` takes.

    Raises:
        BuildError: minisign is missing, the key is none or its password is wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "key.pub"
        _minisign(["-R", "-s", str(key.path), "-p", str(public)], key)
        return public.read_text().splitlines()[-1].strip()


def verify(path: Path, public: Path, signature: Path | None = None) -> str:
    """Check a signature; returns the comment that it vouches for.

    Raises:
        BuildError: the signature is missing, or not of this file by this key.
    """
    signature = signature or path.with_name(path.name + SUFFIX)
    result = _run(["-V", "-Q", "-m", str(path), "-x", str(signature), "-p", str(public)], "")
    if result.returncode:
        raise BuildError(
            f"the signature of {path} is not valid: {_words(result)}", "use neither; fetch both files and the key again"
        )
    return result.stdout.strip()


def _minisign(arguments: list[str], key: SigningKey) -> None:
    # Asked once for the password, if at all.
    result = _run(arguments, f"{key.password}\n" if key.password is not None else "")
    if result.returncode == 0:
        return
    words = _words(result)
    if "Wrong password" in words:
        raise BuildError(
            f"the password of the signing key {key.path} is wrong", f"set {PASSWORD_VARIABLE} to the right one"
        )
    if key.password is None and ("get_password" in words or "Password" in words):
        raise BuildError(f"the signing key {key.path} asks for a password", f"set {PASSWORD_VARIABLE}")
    raise BuildError(
        f"minisign cannot sign with {key.path}: {words}", "it must be a minisign secret key: minisign -G -s FILE"
    )


def _run(arguments: list[str], given: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("minisign")
    if not program:
        raise BuildError("minisign is not installed", "scripts/setup.sh builder   (or: apt-get install minisign)")
    try:
        return subprocess.run(
            [program, *arguments], input=given, capture_output=True, text=True, errors="replace",
            check=False, timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"minisign did not end within {PATIENCE:.0f} s", "is this host very busy? repeat") from error


def _words(result: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"status {result.returncode}"
