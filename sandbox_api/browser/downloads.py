"""Files that pages hand over; they land in the workspace's `downloads` under the names that pages give them."""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sandbox_api.browser.models import Download
from sandbox_api.errors import SandboxError
from sandbox_api.log import logger

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

KEPT = 1000
LONGEST_NAME = 200
STATES: dict[str, Literal["in_progress", "completed", "canceled"]] = {
    "inProgress": "in_progress",
    "completed": "completed",
    "canceled": "canceled",
}


class Downloads:
    """Chromium writes each under a name of its own into a hidden folder, and overwrites nothing that way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arriving = folder / ".arriving"
        self._known: OrderedDict[str, Download] = OrderedDict()
        self._reported: set[str] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def attach(self, session: CDPSession) -> None:
        """Take the downloads of a newly connected browser; what an earlier one had begun is lost."""
        for download in self._known.values():
            if download.state == "in_progress":
                download.state = "canceled"
        await asyncio.to_thread(self._arriving.mkdir, parents=True, exist_ok=True)
        session.on("Browser.downloadWillBegin", self._on_begin)
        session.on("Browser.downloadProgress", self._on_progress)
        await session.send(
            "Browser.setDownloadBehavior",
            {"behavior": "allowAndName", "downloadPath": str(self._arriving), "eventsEnabled": True},
        )

    @property
    def count(self) -> int:
        return len(self._known)

    def listed(self) -> list[Download]:
        """Newest last."""
        return list(self._known.values())

    async def wait(self) -> Download:
        """The next download that no wait has given yet, when it has ended. One that ended before counts."""
        async with self._changed:
            while True:
                for download in self._known.values():
                    if download.id not in self._reported and download.state != "in_progress":
                        self._reported.add(download.id)
                        return download
                await self._changed.wait()

    def _on_begin(self, event: dict[str, Any]) -> None:
        while len(self._known) >= KEPT:
            self._reported.discard(self._known.popitem(last=False)[0])
        self._known[event["guid"]] = Download(
            id=event["guid"],
            url=str(event.get("url", ""))[:2000],
            name=_safe(str(event.get("suggestedFilename", ""))),
            state="in_progress",
            started=time.time(),
        )

    def _on_progress(self, event: dict[str, Any]) -> None:
        if download := self._known.get(event["guid"]):
            download.received = int(event.get("receivedBytes", 0))
            download.size = int(event.get("totalBytes", 0))
            if event.get("state") != "inProgress":
                task = asyncio.create_task(self._end(download, STATES.get(event["state"], "canceled")))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _end(self, download: Download, state: Literal["in_progress", "completed", "canceled"]) -> None:
        if state == "completed" and download.state == "in_progress":
            try:
                path = await asyncio.to_thread(self._land, download)
                download.path, download.name, download.size = str(path), path.name, path.stat().st_size
            except OSError as error:
                logger.warning("download-lost", name=download.name, reason=str(error))
                state = "canceled"
        async with self._changed:
            download.state = state
            self._changed.notify_all()

    def _land(self, download: Download) -> Path:
        stem, ending = os.path.splitext(download.name)  # noqa: PTH122 - a name, not a path
        for number in range(10_000):
            path = self.folder / (f"{stem} ({number}){ending}" if number else download.name)
            try:
                # A link fails when the name is taken; a rename would replace what is there.
                os.link(self._arriving / download.id, path)
            except FileExistsError:
                continue
            except OSError:
                if path.exists():
                    continue
                return (self._arriving / download.id).rename(path)
            (self._arriving / download.id).unlink()
            return path
        raise SandboxError("limit_reached", f"10000 downloads have the name {download.name}")


def _safe(name: str) -> str:
    last = name.replace("\\", "/").rsplit("/", 1)[-1].lstrip(".").strip()
    printable = "".join(letter for letter in last if letter.isprintable())
    stem, ending = os.path.splitext(printable)  # noqa: PTH122
    return (stem[: LONGEST_NAME - len(ending[:20])] + ending[:20]) or "download"
