"""Options of the whole appliance's container: given in environment variables, and without those that need a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aisandbox.instance import files
from aisandbox.instance.address import RUNPOD
from aisandbox.instance.choose.options.choice import Unavailable
from aisandbox.instance.choose.options.source import SECTION, Source
from aisandbox.instance.places import Places

NAME = "environment variables"
PREFIX = f"{SECTION.upper()}_"
DEBUG = f"{PREFIX}DEBUG"
"""Of ours, but no option."""

PLATFORM = "the platform's proxy, or one of your own, serves HTTPS"
UNAVAILABLE = {
    "allowed_cidrs": Unavailable(
        "cannot be had in a container, which filters no packets and sees a proxy's address instead of its visitors'; "
        "so the API asks for a key and the chat page for a password, generated ones unless they are chosen",
        "See them: sudo aisandbox keys . Let addresses in by the firewall before the container, and leave this out.",
        frozenset({"api_key", "chat_password"}),
    ),
    "domain": Unavailable(
        f"cannot be had in a container: {PLATFORM}", "Leave it out, and name your proxy's address in host_names."
    ),
    "tls_email": Unavailable(f"cannot be had in a container: {PLATFORM}", "Leave it out."),
    "data_volume": Unavailable(
        "cannot be had in a container, which mounts nothing by itself",
        "Leave it out, and mount the volume on /var/lib/aisandbox where the container is started.",
    ),
}


def taken(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are ours to know, of a container's environment."""
    return {name: value for name, value in environment.items() if name.startswith(PREFIX) or name == RUNPOD}


def read(places: Places) -> Iterator[Source]:
    """`AISANDBOX_MODEL` and so on, one for each option; empty ones count as left out, as in a form."""
    given = files.read_json(places.environment) or {}
    values = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in given.items()
        if name.startswith(PREFIX) and name != DEBUG and str(value).strip()
    }
    yield Source(NAME, values)
