"""What a page says: text, HTML, Markdown, its interactive elements, occurrences of a text."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sandbox_api.browser.models import Element, Found
from sandbox_api.browser.scripts import ELEMENTS, FIND_TEXT, MAIN_CONTENT, MOST_ELEMENTS, MOST_FOUND, SELECTOR_OF
from sandbox_api.browser.session import PageCall

if TYPE_CHECKING:
    from playwright.async_api import Frame

LARGEST_ARTICLE = 8 * 2**20
MOST_FRAMES = 20
FRAME_S = 2.0
TEXT = "document.body ? document.body.innerText : document.documentElement?.textContent || ''"
OUTER = "document.documentElement.outerHTML"
INNER = "document.documentElement.innerHTML"


async def text(call: PageCall, most: int) -> str:
    """What a person could read, `most` characters at most."""
    return _bounded(call, await call.page.evaluate(f"({TEXT}).slice(0, {most + 1})"), most)


async def html(call: PageCall, outer: bool, most: int) -> str:
    """The document as it is now; `outer` with the html element itself."""
    return _bounded(call, await call.page.evaluate(f"({OUTER if outer else INNER}).slice(0, {most + 1})"), most)


def _bounded(call: PageCall, found: str, most: int) -> str:
    if len(found) > most:
        call.hints.append(f"only the first {most} characters are shown")
        return found[:most]
    return found


async def markdown(call: PageCall) -> str:
    """The main content. A page whose structure is too large or too deep is given as plain text."""
    source = await call.page.evaluate(MAIN_CONTENT, LARGEST_ARTICLE)
    if source is not None:
        with contextlib.suppress(RecursionError):
            return await asyncio.to_thread(_convert, source)
    call.hints.append("the page is too large for Markdown; this is its text")
    return await text(call, LARGEST_ARTICLE)


def _convert(source: str) -> str:
    from markdownify import markdownify

    converted: str = markdownify(source, heading_style="ATX", bullets="-", strip=["script", "style"])
    lines = [line.rstrip() for line in converted.splitlines()]
    kept = [line for index, line in enumerate(lines) if line or (index and lines[index - 1])]
    return "\n".join(kept).strip() + "\n"


async def elements(call: PageCall) -> list[Element]:
    """Interactive elements that are shown, those of frames included; clicks by index use this list."""
    found: list[dict[str, Any]] = []
    for frame in call.page.frames[:MOST_FRAMES]:
        left = MOST_ELEMENTS - len(found)
        if left <= 0:
            break
        if frame is call.page.main_frame:
            found += await _of_frame(call, frame, left)
            continue
        with contextlib.suppress(Exception):  # a frame that hangs or went away; the others count
            async with asyncio.timeout(FRAME_S):
                found += await _of_frame(call, frame, left)
    listed = [Element(index=index, **element) for index, element in enumerate(found)]
    call.tab.elements = [element.selector for element in listed]
    return listed


async def _of_frame(call: PageCall, frame: Frame, left: int) -> list[dict[str, Any]]:
    prefix, x, y = "", 0.0, 0.0
    at = frame
    while at.parent_frame:
        holder = await at.frame_element()
        box = await holder.bounding_box()
        if not box:
            return []
        if at is frame:
            x, y = box["x"], box["y"]
        prefix = f"{await holder.evaluate(SELECTOR_OF)} >> internal:control=enter-frame >> {prefix}"
        at = at.parent_frame
    answer = await frame.evaluate(ELEMENTS, left)
    if answer["left"]:
        call.hints.append(f"{answer['left']} more elements are not listed")
    for element in answer["found"]:
        element["selector"] = prefix + element["selector"]
        element["bounding_box"]["x"] += x
        element["bounding_box"]["y"] += y
    found: list[dict[str, Any]] = answer["found"]
    return found


async def find(call: PageCall, keyword: str) -> list[Found]:
    """Occurrences of a text, whatever its case."""
    found = await call.page.evaluate(FIND_TEXT, {"keyword": keyword, "most": MOST_FOUND})
    if len(found) == MOST_FOUND:
        call.hints.append(f"only the first {MOST_FOUND} occurrences are listed")
    return [Found(index=index, **one) for index, one in enumerate(found)]
