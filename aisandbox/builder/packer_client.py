"""Packer through the `python-packer` library; the one place that knows the quirks of both.

python-packer 0.1.2 passes `-parallel=true` by default, which Packer dropped in 1.5.6, raises AttributeError for an
invalid template, and returns bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import sh

import packer
from aisandbox.builder import versions
from aisandbox.builder.errors import BuildError

INSTALL = "https://developer.hashicorp.com/packer/install"


def version() -> tuple[int, ...]:
    """Version of the Packer on PATH.

    Raises:
        BuildError: there is none, it is another program of that name, or it is too old.
    """
    if not shutil.which("packer"):
        raise BuildError("Packer is not installed", "scripts/setup.sh builder   (or: apt-get install packer)")
    output = sh.packer("version", _ok_code=range(256)).stdout.decode(errors="replace")
    found = re.search(r"Packer v(\d+)\.(\d+)\.(\d+)", output)
    if not found:
        raise BuildError(f"the `packer` on PATH is not HashiCorp Packer: {output[:80]!r}", "apt-get install packer")
    oldest = versions.oldest_packer()
    numbers = tuple(int(part) for part in found.groups())
    if numbers < versions.numbers(oldest):
        raise BuildError(
            f"Packer {'.'.join(found.groups())} is too old; {oldest} or later is needed",
            f"apt-get install packer   (to bake for marketplaces: {versions.recommended_packer()} or later, {INSTALL})",
        )
    return numbers


def _client(
    template: Path,
    variables: Mapping[str, str],
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **options: object,
) -> packer.Packer:
    # Unbuffered: the log is followed while it grows, and its end must not be lost with the process.
    output = open(log, "ab", buffering=0) if log else None  # noqa: SIM115 - sh writes to it until the command ends
    client = packer.Packer(str(template), vars=dict(variables), out_iter=output, err_iter=output)
    given = os.environ if environment is None else environment
    # Packer finds Ansible on PATH; ours is beside the Python that runs this.
    ours = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"}
    quiet = {"CHECKPOINT_DISABLE": "1", "PACKER_NO_COLOR": "1"}
    client.packer = client.packer.bake(_env={**given, **ours, **quiet}, **options)
    return client


def validate(template: Path, variables: Mapping[str, str], environment: Mapping[str, str] | None = None) -> None:
    """Check a template with these variables.

    Args:
        environment: Packer's, this process's own by default.

    Raises:
        BuildError: Packer refuses it; the message is Packer's.
    """
    try:
        _client(template, variables, environment=environment).validate()
    except (sh.ErrorReturnCode, AttributeError) as error:
        cause = error.__context__ if isinstance(error, AttributeError) else error
        text = getattr(cause, "stdout", b"") + getattr(cause, "stderr", b"")
        raise BuildError(
            f"{template}: {text.decode(errors='replace').strip()}", "mend the template, then: make validate"
        ) from error


def build(
    template: Path, variables: Mapping[str, str], log: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run `packer build`; its output goes to `log` while it runs.

    An interrupt (SIGINT, SIGTERM) is passed on, and Packer given the time to remove what it has made.

    Args:
        environment: Packer's, this process's own by default.

    Raises:
        BuildError: the build failed; the message ends with the last lines of the log.
    """
    version()
    # In the background, because the process is a session leader: no terminal's Ctrl-C reaches it.
    running = _client(template, variables, log, environment, _bg=True).build(parallel=False)
    try:
        with _terminations_as_interrupts():
            try:
                running.wait()
            except KeyboardInterrupt:
                with suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGINT)
                # sh takes a wait that was interrupted for one that is over.
                running.process.wait()
                raise
    except sh.ErrorReturnCode as error:
        raise BuildError(f"packer build {template.name} failed (exit {error.exit_code})", f"less {log}") from error


@contextmanager
def _terminations_as_interrupts() -> Iterator[None]:
    """Take SIGTERM for SIGINT; only the main thread can, and only it is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
