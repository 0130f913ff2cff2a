"""The names that chat and API answer to, so that no web page can have a name of its own lead here (DNS rebinding).

Addresses, localhost and names without a dot always count: templates/nginx/nginx.conf.j2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from aisandbox.instance import address as addresses
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.options.rules import host_name
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest


def of(places: Places, manifest: Manifest, choice: Choice) -> tuple[str, ...]:
    """The chosen names, `*.NAME` among them, and those that the machine and its platform tell of."""
    chosen = (choice.host_names or "").split(",")
    told = [choice.domain or "", *_machine(places), *_cloud(places), *_proxy(places, manifest)]
    names = {*chosen, *(host_name(name) or "" for name in told)}
    return tuple(sorted(name for name in names if "." in name))


def _machine(places: Places) -> Iterator[str]:
    """The machine's own name, and the longer ones beside it in /etc/hosts."""
    own = _text(places.hostname).strip()
    yield own
    for line in _text(places.hosts).splitlines():
        names = line.partition("#")[0].split()[1:]
        if own in names:
            yield from names


def _cloud(places: Places) -> Iterator[str]:
    known = addresses.metadata(places)
    for key in ("public-hostname", "local-hostname", "hostname"):
        if isinstance(known.get(key), str):
            yield known[key]


def _proxy(places: Places, manifest: Manifest) -> Iterator[str]:
    for port in ("chat", "api"):
        if address := addresses.of_proxy(places, manifest.ports[port].port):
            yield urlsplit(address).hostname or ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
