"""/v1/browser: the browser itself, tabs, cookies, state, network, downloads."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request

from sandbox_api.addresses import public_base
from sandbox_api.browser import models, page_router
from sandbox_api.browser.page_router import TabQuery, envelope
from sandbox_api.envelope import Envelope, ok
from sandbox_api.errors import SandboxError
from sandbox_api.services import Injected

browser = APIRouter(prefix="/v1/browser", tags=["browser"])
tabs = APIRouter(prefix="/v1/browser/tabs", tags=["browser tabs"])
cookies = APIRouter(prefix="/v1/browser/cookies", tags=["browser cookies"])
state = APIRouter(prefix="/v1/browser/state", tags=["browser state"])
network = APIRouter(prefix="/v1/browser/network", tags=["browser network"])


@browser.get("/info")
async def info(request: Request, services: Injected) -> Envelope[models.BrowserInfo]:
    """The browser, and its addresses as seen from the caller's side."""
    version = await services.browser.version()
    viewport, page = await services.browser.viewports()
    base = public_base(request, services.settings)
    cdp_http, cdp_socket = services.entry.cdp_endpoint(request)
    return ok(
        models.BrowserInfo(
            user_agent=version.user_agent,
            cdp_url=cdp_socket,
            cdp_http_url=cdp_http,
            vnc_url=f"{base}/vnc/index.html?autoconnect=true&resize=scale",
            viewport=viewport,
            page_viewport=page,
            version=version.product,
            protocol_version=version.protocol,
        )
    )


@browser.post("/config")
async def config(request: models.BrowserConfigRequest, services: Injected) -> Envelope[models.Viewport | None]:
    """Change the size of the desktop; the browser's window follows."""
    if request.resolution is None:
        return ok(None, "Nothing to change")
    return ok(await services.browser.resize(request.resolution))


@browser.post("/restart")
async def restart(services: Injected, request: models.RestartRequest | None = None) -> Envelope[models.Restarted]:
    """Close the browser, and wait until its supervisor has started it again. Its profile stays."""
    request = request or models.RestartRequest()
    wanted = request.model_dump(exclude={"mode"}, exclude_none=True)
    if wanted:
        raise SandboxError("not_implemented", f"the browser's policies are not changed here: {', '.join(wanted)}")
    return ok(await services.browser.restart(request.mode))


@browser.post("/navigate")
async def navigate(
    request: models.NavigateRequest, services: Injected, tab: TabQuery = None
) -> Envelope[models.Navigation]:
    """Open an address."""
    return envelope(await services.browser.navigate(request.url, request.wait_until, request.timeout, tab))


@browser.post("/screenshot")
async def screenshot(
    request: models.ScreenshotRequest, services: Injected, tab: TabQuery = None
) -> Envelope[models.Screenshot]:
    """The page as a picture, saved to a file or returned in base64."""
    return envelope(await services.browser.screenshot(request, tab))


@browser.get("/downloads")
async def downloads(services: Injected) -> Envelope[list[models.Download]]:
    """Files that pages handed over, newest last; complete ones lie in the workspace's `downloads`."""
    return ok(await services.browser.downloads())


@tabs.get("")
async def list_tabs(services: Injected) -> Envelope[list[models.TabInfo]]:
    """All tabs, those that people opened included."""
    return ok(await services.browser.tabs())


@tabs.post("")
async def create_tab(services: Injected, request: models.CreatePageRequest | None = None) -> Envelope[models.TabInfo]:
    """Open a tab, in front of the others."""
    request = request or models.CreatePageRequest()
    return envelope(await services.browser.open_tab(request.url, request.timeout))


@tabs.delete("/{tab}")
async def close_tab(tab: str, services: Injected) -> Envelope[None]:
    """Close a tab, by index or id. In place of the last one, an empty one opens."""
    await services.browser.close_tab(tab)
    return ok(None)


@tabs.put("/{tab}/activate")
async def activate_tab(tab: str, services: Injected) -> Envelope[models.TabInfo]:
    """Bring a tab to the front, by index or id."""
    return ok(await services.browser.activate_tab(tab))


@cookies.get("")
async def get_cookies(
    services: Injected,
    urls: Annotated[str | None, Query(max_length=65536, description="Addresses with commas.")] = None,
) -> Envelope[list[dict[str, Any]]]:
    """All cookies, or those that would be sent to these addresses."""
    return ok(await services.browser.cookies([url.strip() for url in (urls or "").split(",") if url.strip()]))


@cookies.post("")
async def set_cookies(request: models.CookieSetRequest, services: Injected) -> Envelope[dict[str, int]]:
    """Set cookies: name, value, and url or domain (else the page in front), path, expires, httpOnly, secure,
    sameSite."""
    return ok({"count": await services.browser.set_cookies(request.cookies)})


@cookies.delete("")
async def clear_cookies(
    services: Injected, name: str | None = None, domain: str | None = None, path: str | None = None
) -> Envelope[None]:
    """Delete all cookies, or those that match."""
    await services.browser.clear_cookies(name, domain, path)
    return ok(None)


@state.post("/save")
async def save_state(request: models.StateRequest, services: Injected) -> Envelope[models.StateSaved]:
    """Save cookies and local storage to a file."""
    return ok(await services.browser.save_state(request.path))


@state.post("/load")
async def load_state(request: models.StateRequest, services: Injected) -> Envelope[models.StateSaved]:
    """Replace cookies and local storage by those of a saved file."""
    return ok(await services.browser.load_state(request.path))


@network.post("/headers")
async def set_headers(request: models.HeadersRequest, services: Injected) -> Envelope[None]:
    """Headers of all further requests of all tabs; none removes them."""
    await services.browser.set_headers(request.headers)
    return ok(None)


@network.post("/scoped_headers")
async def set_scoped_headers(request: models.ScopedHeadersRequest, services: Injected) -> Envelope[None]:
    """Headers of further requests to one origin; none removes them."""
    await services.browser.set_scoped_headers(request.origin, request.headers)
    return ok(None)


@network.post("/route")
async def add_route(request: models.NetworkRouteRequest, services: Injected) -> Envelope[None]:
    """Answer requests that match a glob, or refuse them with `abort`. The same pattern replaces an earlier rule."""
    await services.browser.add_route(request)
    return ok(None)


@network.get("/route")
async def list_routes(services: Injected) -> Envelope[list[models.NetworkRouteRequest]]:
    """The rules in force."""
    return ok(services.browser.routes())


@network.delete("/route")
async def remove_route(request: models.NetworkRouteRemoveRequest, services: Injected) -> Envelope[None]:
    """Remove a rule."""
    await services.browser.remove_route(request.url_pattern)
    return ok(None)


@network.get("/requests")
async def requests(
    services: Injected,
    filter: Annotated[str | None, Query(max_length=4096, description="A part of the address.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    tab: TabQuery = None,
) -> Envelope[list[dict[str, Any]]]:
    """The tab's last requests, oldest first."""
    return ok(await services.browser.requests(filter, limit, tab))


@network.post("/export_har")
async def export_har(request: models.ExportRequest, services: Injected, tab: TabQuery = None) -> Envelope[models.Saved]:
    """The tab's last 1000 requests as a HAR file."""
    return ok(await services.browser.export_har(request.save_path, tab))


router = APIRouter()
for part in (browser, page_router.router, tabs, cookies, state, network):
    router.include_router(part)
