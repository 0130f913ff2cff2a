"""DigitalOcean: a new version of a 1-Click App of the Vendor Portal.

Source: digitalocean/marketplace-partners, README.md (October 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish.change import Change, Environment, setting
from aisandbox.builder.publish.rest import Api

TOKEN, APP, URL = "DIGITALOCEAN_TOKEN", "DIGITALOCEAN_APP_ID", "DIGITALOCEAN_API_URL"
NAME = "DigitalOcean"
BODY = "patch.json"


def change(body: dict[str, Any], image: str, environment: Environment) -> Change:
    """The app's new version, made from a snapshot's number."""
    if not image.isdecimal():
        raise BuildError(f"{image!r} is no snapshot of {NAME}", "give its number: IMAGE=123456789")
    path = f"/api/v1/vendor-portal/apps/{setting(environment, APP)}"
    return Change(f"PATCH {_base(environment)}{path}", {**body, "imageId": int(image)})


def send(change: Change, environment: Environment, say: Callable[[str], None]) -> dict[str, Any]:
    """Ask for it; the portal then reviews it."""
    with Api(NAME, _base(environment), environment[TOKEN], TOKEN) as api:
        image = api.ask("GET", f"/v2/images/{change.body['imageId']}").get("image") or {}
        if image.get("type") != "snapshot" or image.get("status") != "available":
            found = f"{image.get('type')}, {image.get('status')}"
            raise BuildError(
                f"image {change.body['imageId']} is no snapshot that is ready ({found})",
                "make image TARGET=digitalocean",
            )
        say(f"snapshot {image.get('name')} is there")
        return api.ask("PATCH", f"/api/v1/vendor-portal/apps/{environment[APP]}", change.body)


def _base(environment: Environment) -> str:
    return environment.get(URL) or "https://api.digitalocean.com"
