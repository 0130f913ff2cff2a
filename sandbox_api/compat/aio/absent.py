"""Routes that this sandbox does not offer; their answers say so."""

from __future__ import annotations

from fastapi import APIRouter

from sandbox_api.envelope import Envelope
from sandbox_api.errors import SandboxError

CAPTCHA = "recognising and solving captchas is not offered"
PROXY = "outgoing traffic is not proxied; it uses the host's network"
HINTS = {PROXY: "For a command, set HTTP_PROXY in its environment; /proxy/PORT/ reaches servers inside the sandbox."}
ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", "/v1/browser/captcha/detect", CAPTCHA),
    ("POST", "/v1/browser/captcha/wait", CAPTCHA),
    ("GET", "/v1/browser/proxy.pac", PROXY),
    ("GET", "/v1/proxy/mappings", PROXY),
    ("POST", "/v1/proxy/mappings", PROXY),
    ("DELETE", "/v1/proxy/mappings/{source}", PROXY),
    ("GET", "/v1/proxy/excludes", PROXY),
    ("POST", "/v1/proxy/excludes", PROXY),
    ("DELETE", "/v1/proxy/excludes", PROXY),
    ("GET", "/v1/proxy/diagnose", PROXY),
    ("GET", "/v1/proxy/health", PROXY),
    ("GET", "/v1/proxy/upstream", PROXY),
    ("PUT", "/v1/proxy/upstream", PROXY),
    ("DELETE", "/v1/proxy/upstream", PROXY),
)

router = APIRouter()


def _add(method: str, path: str, reason: str) -> None:
    async def refuse() -> Envelope[None]:
        raise SandboxError("not_implemented", reason, hint=HINTS.get(reason))

    name = f"{method} {path}".lower().replace("/", "_").replace("{", "").replace("}", "").replace(" ", "")
    router.add_api_route(
        path, refuse, methods=[method], name=name, tags=["not offered"], summary="Not offered", description=reason
    )


for _route in ROUTES:
    _add(*_route)
