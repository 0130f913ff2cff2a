"""The addresses by which an instance is reached, as the cloud or the container's platform gives them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

from aisandbox.instance import files
from aisandbox.instance.places import Places

RUNPOD = "RUNPOD_POD_ID"
"""RunPod names the pod, and so its addresses: its proxy hides the name that a visitor's browser used."""


def metadata(places: Places) -> Mapping[str, Any]:
    """What the cloud says of the machine, such as `public-ipv4`, with dashes in the keys."""
    found = (files.read_json(places.cloud_run / "instance-data.json") or {}).get("ds")
    parts = (found.get(part) for part in ("ec2_metadata", "meta_data")) if isinstance(found, dict) else ()
    return {key.replace("_", "-"): value for part in parts if isinstance(part, dict) for key, value in part.items()}


def host(places: Places) -> str:
    """Where to reach the instance: its public address when the cloud tells, else its route's."""
    public = metadata(places).get("public-ipv4")
    if isinstance(public, str) and public:
        return public
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket only picks the route: nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def of_proxy(places: Places, port: int) -> str | None:
    """Where the platform's proxy serves that port of a container, where that is known."""
    pod = str((files.read_json(places.environment) or {}).get(RUNPOD) or "")
    return f"https://{pod}-{port}.proxy.runpod.net" if re.fullmatch(r"[a-z0-9]{1,63}", pod) else None
