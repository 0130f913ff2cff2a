"""Every file that is rendered from the choice: its template, its place, and the units that must hear of a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aisandbox.instance import files
from aisandbox.instance.environment_file import quoted, quoted_lines
from aisandbox.instance.places import Places
from aisandbox.instance.run import services


@dataclass(frozen=True)
class Rendered:
    """One rendered file. `template` lies below the templates' folder, `file` below `/etc/aisandbox`.

    A template that comes out empty means that there is no file.
    """

    template: str
    file: str
    units: tuple[str, ...]
    """Units that read the file."""
    action: Literal["restart", "reload"] = "restart"
    mode: int = 0o600


RENDERED = (
    Rendered("open-webui.env.j2", "open-webui.env", (services.OPEN_WEBUI,)),
    Rendered("nginx/chat-login.conf.j2", "nginx/chat-login.conf", (services.NGINX,), "reload"),
    Rendered("nginx/chat-origin.conf.j2", "nginx/chat-origin.conf", (services.NGINX,), "reload"),
    Rendered("nginx/host-names.conf.j2", "nginx/host-names.conf", (services.NGINX,), "reload"),
    Rendered("nginx/api-lock.conf.j2", "nginx/api-lock.conf", (services.NGINX,), "reload"),
    Rendered("certificate.env.j2", "certificate.env", (services.CERTIFICATE,)),
    Rendered("nftables/access.conf.j2", "nftables/access.conf", (services.FIREWALL,), "reload"),
    Rendered("sandbox-api.env.j2", "sandbox-api.env", (services.SANDBOX_API,)),
    Rendered("sandbox.off.j2", "sandbox.off", services.SANDBOX, mode=0o644),
    # Read at the next start only, long before the choice is known.
    Rendered("data-volume.j2", "data-volume", (), mode=0o644),
)


def write(places: Places, context: Mapping[str, Any]) -> tuple[Rendered, ...]:
    """Render every file from the choice. Returns those that changed."""
    return tuple(entry for entry in RENDERED if _write(places, entry, context))


def _write(places: Places, entry: Rendered, context: Mapping[str, Any]) -> bool:
    path = places.etc / entry.file
    text = fill((places.templates / entry.template).read_text(encoding="utf-8"), context)
    if text.strip():
        return files.write(path, text, entry.mode)
    return files.remove(path)


def fill(template: str, context: Mapping[str, Any]) -> str:
    """Fill a template. `quoted` and `quoted_lines` make any text a value of a systemd environment file."""
    import jinja2  # the slowest of our imports, and not every command renders

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - these are settings and plain text, not HTML
    )
    environment.filters["quoted"] = quoted
    environment.filters["quoted_lines"] = quoted_lines
    return environment.from_string(template).render(context)
