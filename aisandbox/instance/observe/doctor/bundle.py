"""The support archive: what somebody who helps needs to know, and nothing that they should not.

Text goes through `scrub`, with every secret that this instance knows. Prompts and answers are nowhere in it: journals
of what runs the users' own programs are left out, and so are lines of the others that could quote a request.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aisandbox.instance import scrub
from aisandbox.instance.choose import options
from aisandbox.instance.fit import gpu
from aisandbox.instance.observe import status
from aisandbox.instance.observe.doctor import Diagnosis, Instance
from aisandbox.instance.run import services

FOLDER = "aisandbox-support"
LONGEST_FILE = 256 * 1024
JOURNAL_LINES = 3000
JOURNALS = (
    services.CONFIGURE,
    services.MODEL,
    services.VLLM,
    services.OPEN_WEBUI,
    services.AUXILIARY,
    services.NGINX,
    services.STATUS,
    services.ENGINE_SYNC,
    services.FIREWALL,
    services.CERTIFICATE,
    *gpu.UNITS,
)
PERSONAL = ("chat_email", "tls_email")
QUOTES_A_REQUEST = re.compile(
    r"(?i)prompt|messages|content|received request|conversation|query|request (?:body|line)|/\?"
)
LOOKS_LIKE_SETTING = re.compile(r"^([A-Z][A-Z0-9_]*(?:SECRET|PASSWORD|TOKEN|KEY)[A-Z0-9_]*)=(.+)$", re.MULTILINE)

README = """\
Support archive of an AI Sandbox, made by `aisandbox doctor --bundle`.

It holds states, settings and logs. Secrets are replaced by ********: those that this instance knows, and whatever
looks like one. It holds no prompts, answers, chats, models or files of the workspace; lines of logs that could quote a
request are left out, and so are the logs of everything that runs in the sandbox. Please look through it before you pass
it on.
"""


def write(instance: Instance, diagnosis: Diagnosis, target: Path) -> int:
    """Write the archive, readable to its owner only. Returns how many files it holds.

    Raises:
        FileExistsError: there is such a file; nothing is ever written over.
    """
    hidden = secrets(instance)
    # A link that waits in a folder where everybody may write must not be followed.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    count = 0
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in _contents(instance, diagnosis):
            content = scrub.text(text, hidden).encode()
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(content))
            count += 1
    return count


def secrets(instance: Instance) -> set[str]:
    """Every secret that can be known here, and what is personal."""
    places, manifest = instance.places, instance.manifest
    found = set()
    keys = {option.key for option in manifest.options if option.type == "secret"} | set(PERSONAL)
    # As it was given, so that an invalid one is hidden as well.
    # Who may not read them cannot put them into the archive, either.
    for source in options.sources(places, manifest) if instance.root else ():
        found |= {str(value).strip() for key, value in source.values.items() if key in keys and value is not None}
    for folder in (places.secrets, places.hf_token.parent):
        found |= {text.strip() for _, text in _files(folder)}
    for _, text in _files(places.etc):
        found |= {match[2].strip("\"'") for match in LOOKS_LIKE_SETTING.finditer(text)}
    return found


def _contents(instance: Instance, diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Names and texts of the archive's files, not scrubbed yet."""
    places, manifest = instance.places, instance.manifest
    yield "README.txt", README
    yield "doctor.json", diagnosis.model_dump_json(indent=1)
    yield "status.json", status.compose(places, manifest, with_timeline=True).model_dump_json(indent=1)
    yield "hardware.json", json.dumps(asdict(instance.hardware), indent=1)
    for path in (places.resolved, places.located, places.release):
        yield path.name, _text(path)
    for path, text in _files(places.run / "status"):
        yield f"reports/{path.name}", text
    for path, text in _files(places.etc):
        # What a cloud handed over may hold anything.
        if places.hf_token.parent not in path.parents and path not in (places.kept_metadata, places.udf):
            yield f"etc/{path.relative_to(places.etc)}", text
    for name in ("etc/os-release", "proc/version", "proc/meminfo", "proc/cpuinfo", "proc/loadavg", "proc/mounts"):
        yield f"machine/{Path(name).name}", _text(places.root / name)
    for name, command in COMMANDS.items():
        yield f"machine/{name}.txt", _said(command)
    if places.live:
        yield from _journals()


COMMANDS = {
    "disks": ["df", "--human-readable", "--print-type"],
    "inodes": ["df", "--inodes"],
    "block-devices": ["lsblk", "--fs"],
    "addresses": ["ip", "-brief", "address"],
    "nvidia": ["nvidia-smi"],
    "units": ["systemctl", "--no-pager", "list-units", "--all", *services.SERVICES, services.STATUS, services.FIREWALL],
    "failed-units": ["systemctl", "--no-pager", "--failed"],
    "clock": ["timedatectl", "show"],
}
"""What the machine says of itself; `systemctl status` is not among it, because it quotes the journal."""


def _journals() -> Iterator[tuple[str, str]]:
    for unit in JOURNALS:
        command = ["journalctl", "--boot", "--output=short-iso", f"--lines={JOURNAL_LINES}", f"--unit={unit}"]
        yield f"journal/{unit}.txt", without_requests(_said(command))


def without_requests(log: str) -> str:
    """The log without lines that could quote what somebody asked or was answered."""
    return "\n".join(line for line in log.splitlines() if not QUOTES_A_REQUEST.search(line)) + "\n"


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Text files below a folder, as far as they can be read; links are not followed."""
    try:
        found = sorted(path for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode))
    except OSError:
        return
    for path in found:
        yield path, _text(path)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_FILE).decode(errors="replace")
    except OSError as error:
        return f"(cannot be read: {error.strerror})\n"


def _said(command: list[str]) -> str:
    try:
        said: Any = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"({command[0]}: {error})\n"
    return str(said.stdout + said.stderr)
