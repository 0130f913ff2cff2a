"""What a person does on a page: click, type, choose, scroll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sandbox_api.browser import content, files, keys
from sandbox_api.browser.models import (
    CheckRequest,
    ClickRequest,
    FillRequest,
    FormFillRequest,
    HotKeyRequest,
    HoverRequest,
    KeyRequest,
    ScrollRequest,
    ScrollToElementRequest,
    ScrollToRequest,
    SelectOptionRequest,
    Timed,
    TypeTextRequest,
    UncheckRequest,
    UploadFileRequest,
)
from sandbox_api.browser.session import PageCall
from sandbox_api.errors import SandboxError
from sandbox_api.paths import Confinement

KIND = "element => [element.localName, element.type || '']"
SCROLL = "([x, y]) => { (document.scrollingElement || document.documentElement).scrollBy(x, y); }"
DIRECTIONS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


async def perform(call: PageCall, request: Timed, paths: Confinement) -> None:
    """Do what is asked.

    Raises:
        SandboxError: `element_not_found`, `browser_timeout`, `invalid_request`, `browser_failed`.
    """
    await ACTIONS[type(request)](call, request, paths)


async def _selector(call: PageCall, selector: str | None, index: int | None) -> str:
    if selector is not None:
        return selector
    assert index is not None
    if not call.tab.elements:
        await content.elements(call)
    if index >= len(call.tab.elements):
        raise SandboxError("element_not_found", f"{call.what}: there is no element with index {index}")
    return call.tab.elements[index]


async def _click(call: PageCall, request: ClickRequest, _: Confinement) -> None:
    options: dict[str, Any] = {"button": request.button, "click_count": request.click_count}
    if request.selector is None and request.index is None:
        assert request.x is not None and request.y is not None
        await call.page.mouse.click(request.x, request.y, **options)
        return
    selector = await _selector(call, request.selector, request.index)
    await call.page.click(selector, timeout=call.ms, **options)


async def _hover(call: PageCall, request: HoverRequest, _: Confinement) -> None:
    if request.selector is None and request.index is None:
        assert request.x is not None and request.y is not None
        await call.page.mouse.move(request.x, request.y)
        return
    await call.page.hover(await _selector(call, request.selector, request.index), timeout=call.ms)


async def _fill(call: PageCall, request: FillRequest, _: Confinement) -> None:
    await _set(call, await _selector(call, request.selector, request.index), request.text)


async def _fill_form(call: PageCall, request: FormFillRequest, _: Confinement) -> None:
    for item in request.items:
        value = item.text if item.value is None else item.value
        assert value is not None
        await _set(call, await _selector(call, item.selector, item.index), value)


async def _set(call: PageCall, selector: str, value: str | float | bool) -> None:
    page = call.page
    found = await page.wait_for_selector(selector, state="attached", timeout=call.ms)
    assert found
    tag, kind = await found.evaluate(KIND)
    if kind in ("checkbox", "radio"):
        wanted = value if isinstance(value, bool) else str(value).lower() in ("true", "1", "on", "yes", "checked")
        await page.set_checked(selector, wanted, timeout=call.ms)
    elif tag == "select":
        # Playwright takes a plain string for either a value or a label.
        await page.select_option(selector, str(value), timeout=call.ms)
    elif kind == "file":
        raise SandboxError("invalid_request", f"{call.what}: {selector} takes files; use upload_file")
    else:
        await page.fill(selector, str(value), timeout=call.ms)


async def _type(call: PageCall, request: TypeTextRequest, _: Confinement) -> None:
    if request.selector is not None or request.index is not None:
        await call.page.focus(await _selector(call, request.selector, request.index), timeout=call.ms)
    await call.page.keyboard.type(request.text, delay=request.delay)


async def _press(call: PageCall, request: KeyRequest, _: Confinement) -> None:
    if request.selector is not None or request.index is not None:
        await call.page.focus(await _selector(call, request.selector, request.index), timeout=call.ms)
    await call.page.keyboard.press(keys.combination([request.key]))


async def _hot_key(call: PageCall, request: HotKeyRequest, _: Confinement) -> None:
    await call.page.keyboard.press(keys.combination(request.keys))


async def _select(call: PageCall, request: SelectOptionRequest, _: Confinement) -> None:
    selector = await _selector(call, request.selector, request.index)
    options: dict[str, Any] = {"timeout": call.ms}
    if request.value is not None:
        options["value"] = request.value
    if request.label is not None:
        options["label"] = request.label
    if request.selector is not None and request.index is not None:
        options["index"] = request.index
    await call.page.select_option(selector, **options)


async def _check(call: PageCall, request: CheckRequest | UncheckRequest, _: Confinement) -> None:
    selector = await _selector(call, request.selector, request.index)
    await call.page.set_checked(selector, isinstance(request, CheckRequest), timeout=call.ms)


async def _upload(call: PageCall, request: UploadFileRequest, paths: Confinement) -> None:
    chosen = [await asyncio.to_thread(files.readable, paths, name) for name in request.files]
    selector = await _selector(call, request.selector, request.index)
    found = await call.page.wait_for_selector(selector, state="attached", timeout=call.ms)
    assert found
    if await found.evaluate(KIND) == ["input", "file"]:
        await found.set_input_files(chosen, timeout=call.ms)
        return
    # A button that opens the dialog in which a person would choose.
    async with call.page.expect_file_chooser(timeout=call.ms) as chooser:
        await call.page.click(selector, timeout=call.ms)
    await (await chooser.value).set_files(chosen, timeout=call.ms)


async def _scroll(call: PageCall, request: ScrollRequest, _: Confinement) -> None:
    x, y = DIRECTIONS[request.direction]
    await call.page.evaluate(SCROLL, [x * request.amount, y * request.amount])


async def _scroll_to(call: PageCall, request: ScrollToRequest, _: Confinement) -> None:
    await call.page.evaluate("([x, y]) => scrollTo(x, y)", [request.x, request.y])


async def _scroll_to_element(call: PageCall, request: ScrollToElementRequest, _: Confinement) -> None:
    selector = await _selector(call, request.selector, request.index)
    await call.page.locator(selector).first.scroll_into_view_if_needed(timeout=call.ms)


ACTIONS: dict[type[Timed], Callable[[PageCall, Any, Confinement], Awaitable[None]]] = {
    ClickRequest: _click,
    HoverRequest: _hover,
    FillRequest: _fill,
    FormFillRequest: _fill_form,
    TypeTextRequest: _type,
    KeyRequest: _press,
    HotKeyRequest: _hot_key,
    SelectOptionRequest: _select,
    CheckRequest: _check,
    UncheckRequest: _check,
    UploadFileRequest: _upload,
    ScrollRequest: _scroll,
    ScrollToRequest: _scroll_to,
    ScrollToElementRequest: _scroll_to_element,
}
