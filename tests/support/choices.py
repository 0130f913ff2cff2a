"""An instance's choice from a text that it is given in any of the ways in which people give it."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import yaml

from aisandbox.instance.choose import access, options
from aisandbox.instance.choose.options import InvalidOptionError
from aisandbox.instance.places import Places
from aisandbox.manifest import load
from tests.support import appliance

MANIFEST = load()

Write = Callable[[Places, str], None]
"""Gives a text of `aisandbox:` and what stands in it to an instance."""


def own_file(places: Places, text: str) -> None:
    appliance.options(places, text)


def raw(encode: Callable[[str], bytes]) -> Write:
    """User-data that cloud-init makes nothing of."""

    def write(places: Places, text: str) -> None:
        places.cloud_instance.mkdir(parents=True, exist_ok=True)
        (places.cloud_instance / "user-data.txt").write_bytes(encode(text))

    return write


def merged(file: str) -> Write:
    """User-data as cloud-init keeps it, before and after it has merged the parts."""

    def write(places: Places, text: str) -> None:
        text = f"#cloud-config\n{text}"
        raw(str.encode)(places, text)
        message = MIMEMultipart()
        message.attach(MIMEText(text, "cloud-config"))
        appliance.cloud_config(places, message.as_string(), "user-data.txt.i")
        older = file == "cloud-config.txt"
        try:
            document = yaml.safe_load(text)
            kept = f"#cloud-config\n{yaml.safe_dump(document)}" if older else json.dumps(document, default=str)
        except Exception:  # what cloud-init cannot read, it leaves out
            kept = "#cloud-config\n{}" if older else "{}"
        folder = places.cloud_instance if older else places.cloud_run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(kept)

    return write


SOURCES: dict[str, Write] = {
    "own file": own_file,
    "merged": merged("combined-cloud-config.json"),
    "merged, older": merged("cloud-config.txt"),
    "bare": raw(str.encode),
    "nearly cloud-config": raw(lambda text: f"# cloud-config\n{text}".encode()),
    "byte order mark": raw(lambda text: f"#cloud-config\n{text}".encode("utf-8-sig")),
    "UTF-16": raw(lambda text: f"#cloud-config\r\n{text}".encode("utf-16")),
    "UTF-16 without a mark": raw(lambda text: f"#cloud-config\n{text}".encode("utf-16-be")),
    "base64": raw(lambda text: base64.b64encode(f"#cloud-config\n{text}".encode())),
    "base64 of base64, wrapped": raw(lambda text: base64.encodebytes(base64.b64encode(text.encode()))),
    "base64 of gzip": raw(lambda text: base64.b64encode(gzip.compress(f"#cloud-config\n{text}".encode()))),
    "gzip": raw(lambda text: gzip.compress(text.encode())),
    "Latin-1": raw(lambda text: f"# für mich\n{text}".encode("latin-1", errors="replace")),
}


def chosen(tmp_path: Path, source: str, text: str) -> options.Choice:
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    places = appliance.make(tmp_path)
    SOURCES[source](places, text)
    return options.read(places, MANIFEST)[0]


def shut(choice: options.Choice, guard: str) -> bool:
    in_force = access.of(choice)
    return {
        "api_key": in_force.api_key,
        "chat_password": in_force.chat_login,
        "allowed_cidrs": bool(in_force.allowed_cidrs),
        "sandbox": in_force.sandbox == "off",
    }[guard]


def wrong(guard: str, value: object) -> bool:
    """Whether somebody who gives this value has made a mistake, and none that means the default."""
    try:
        options.check(MANIFEST.options_by_key[guard], value)
    except InvalidOptionError as mistake:
        return not mistake.usable
    return False
