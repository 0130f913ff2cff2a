"""Run by Open WebUI's own Python: prints every route, and whether it is the administrator's, as JSON."""

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any

# Not imported by name: the type checker runs without Open WebUI.
app: Any = import_module("open_webui.main").app
admin: Any = import_module("open_webui.utils.auth").get_admin_user


def needs_admin(dependant: Any) -> bool:
    return any(child.call is admin or needs_admin(child) for child in dependant.dependencies)


def routes() -> Iterator[tuple[str, str, bool]]:
    for route in app.routes:
        if hasattr(route, "dependant") and hasattr(route, "methods"):
            for method in sorted(route.methods):
                yield method, route.path, needs_admin(route.dependant)


print(json.dumps(list(routes())))
