"""Akamai (Linode): the StackScript that deploys a private image and carries the options' form.

Source: Linode API v4, /linode/stackscripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aisandbox.builder.errors import BuildError
from aisandbox.builder.publish.change import Change, Environment
from aisandbox.builder.publish.rest import Api

TOKEN, SCRIPT, URL = "LINODE_TOKEN", "LINODE_STACKSCRIPT_ID", "LINODE_URL"
NAME = "Linode"
BODY = "stackscript.json"
IMAGE = re.compile(r"(private|linode)/[a-z0-9.-]+")


def change(body: dict[str, Any], image: str, environment: Environment) -> Change:
    """The script for that image: the one of LINODE_STACKSCRIPT_ID anew, or a further one without it."""
    if not IMAGE.fullmatch(image):
        raise BuildError(f"{image!r} is no image of {NAME}", "give its id: IMAGE=private/12345678")
    script = environment.get(SCRIPT, "")
    if script and not script.isdecimal():
        raise BuildError(f"{SCRIPT} is no number", f"export {SCRIPT}=… (linode-cli stackscripts list --mine true)")
    where = f"PUT {_base(environment)}{_path(script)}" if script else f"POST {_base(environment)}{_path()}"
    return Change(where, {**body, "images": [image]})


def send(change: Change, environment: Environment, say: Callable[[str], None]) -> dict[str, Any]:
    """Write the script."""
    with Api(NAME, _base(environment), environment[TOKEN], TOKEN) as api:
        image = api.ask("GET", f"/v4/images/{change.body['images'][0]}")
        say(f"image {image.get('label')} is there")
        script = environment.get(SCRIPT, "")
        return api.ask("PUT" if script else "POST", _path(script), change.body)


def _path(script: str = "") -> str:
    return f"/v4/linode/stackscripts{f'/{script}' if script else ''}"


def _base(environment: Environment) -> str:
    return environment.get(URL) or "https://api.linode.com"
