"""Cookies, and the state that pages keep in the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox_api.errors import SandboxError
from sandbox_api.unicode import loads

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

FIELDS = {"name", "value", "url", "domain", "path", "expires", "httpOnly", "secure", "sameSite", "partitionKey"}


def cookie(given: dict[str, Any], url: str) -> dict[str, Any]:
    """A cookie as Playwright takes it. One that names neither domain nor address belongs to the page at `url`.

    Raises:
        SandboxError: `invalid_request`.
    """
    if not isinstance(given.get("name"), str) or not isinstance(given.get("value"), str):
        raise SandboxError("invalid_request", "a cookie needs a name and a value, both text")
    taken = {name: value for name, value in given.items() if name in FIELDS and value is not None}
    if any(not isinstance(taken.get(name, ""), str) for name in ("url", "domain", "path")):
        raise SandboxError("invalid_request", f"url, domain and path of the cookie {taken['name']!r} are text")
    if "sameSite" in taken:
        site = str(taken["sameSite"]).capitalize()
        taken["sameSite"] = {"No_restriction": "None", "Unspecified": "Lax"}.get(site, site)
        if taken["sameSite"] not in ("Strict", "Lax", "None"):
            raise SandboxError("invalid_request", "sameSite of a cookie is Strict, Lax or None")
    if "url" in taken:
        taken.pop("domain", None)
        taken.pop("path", None)
    elif "domain" in taken:
        taken.setdefault("path", "/")
    elif url.startswith(("http://", "https://")):
        taken["url"] = url
    else:
        raise SandboxError("invalid_request", f"the cookie {taken['name']!r} needs a domain or url")
    return taken


async def restore(context: BrowserContext, content: bytes) -> tuple[int, int]:
    """Put back a state that was saved; what is there now is replaced. Returns the numbers of cookies and origins.

    Raises:
        SandboxError: `invalid_request` when it is not a saved state.
    """
    try:
        state = loads(content)
        cookies, origins = state.get("cookies", []), state.get("origins", [])
        fits = all(isinstance(part, list) for part in (cookies, origins))
        fits = fits and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in cookies)
        fits = fits and all(isinstance(one, dict) and isinstance(one.get("origin"), str) for one in origins)
    except (ValueError, AttributeError):
        fits = False
    if not fits:
        raise SandboxError("invalid_request", "the file holds no saved state: {cookies: […], origins: […]}")
    await context.set_storage_state({"cookies": cookies, "origins": origins})
    return len(cookies), len(origins)
