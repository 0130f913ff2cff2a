"""What a person at the desktop sees and does, for programs: picture, mouse, keyboard, clipboard, recording."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from sandbox_api import privileges
from sandbox_api.desktop import models, rfb
from sandbox_api.desktop.keys import SpareKeys, keysym
from sandbox_api.desktop.recording import Recording
from sandbox_api.desktop.x11 import Connection, DisplayError
from sandbox_api.environment import child_environment
from sandbox_api.errors import SandboxError
from sandbox_api.health import Health
from sandbox_api.paths import Confinement
from sandbox_api.settings import Settings

BUTTONS = {"left": "1", "middle": "2", "right": "3"}
WHEEL = {"up": "4", "down": "5", "left": "6", "right": "7"}
WHEEL_STEP = 53
"""Pixels that Chromium scrolls for one step of the wheel."""
DRAG_STEPS = 8
DRAG_STEP_MS = 8
MULTI_CLICK_MS = 60
TYPE_DELAY_MS = 2
SETTLE_S = 0.3
"""Time for programs to look up what was typed, before its keys get another meaning."""
PASTE_S = 0.15
"""Time for a program to fetch what it pastes, before the next action may change the clipboard."""
PATIENCE_S = 10.0
LONGEST_KEYED = 5000
"""Characters that are typed key by key in one action."""


class Screenshot(NamedTuple):
    data: bytes
    width: int
    height: int


class DesktopService:
    def __init__(self, settings: Settings, paths: Confinement) -> None:
        self._settings = settings
        self._environment = child_environment(settings)
        self._clipboard: asyncio.subprocess.Process | None = None
        # Actions of different callers do not mix: a drag is several steps.
        self._lock = asyncio.Lock()
        self._spare_keys: SpareKeys | None = None
        self.recording = Recording(settings, paths)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        await self.recording.stop()
        await self._release_clipboard()

    async def health(self) -> Health:
        if not self._settings.display:
            return Health(status="unavailable", detail="no desktop on this host: SANDBOX_DISPLAY is not set")
        try:
            width, height = await self.size()
        except SandboxError as error:
            return Health(status="starting", detail=error.message)
        return Health(status="ready", detail=f"{width} x {height}", address="/vnc/index.html")

    async def vnc_health(self) -> Health:
        """Of the VNC server behind /vnc/index.html."""
        if not self._settings.vnc_socket:
            return Health(status="unavailable", detail="no VNC on this host: SANDBOX_VNC_SOCKET is not set")
        try:
            _, writer = await rfb.connect(self._settings.vnc_socket)
        except OSError as error:
            return Health(status="starting", detail=f"the VNC server does not answer: {error.strerror or error}")
        writer.close()
        return Health(status="ready", address="/vnc/index.html")

    def _display(self) -> str:
        if not self._settings.display:
            raise SandboxError(
                "display_unavailable",
                "there is no desktop on this host",
                hint="Use the container or the appliance, or set SANDBOX_DISPLAY.",
            )
        return self._settings.display

    async def _ask(self, question: Callable[[Connection], Any]) -> Any:
        display = self._display()

        def ask() -> Any:
            with Connection(display) as connection:
                return question(connection)

        try:
            return await asyncio.to_thread(ask)
        except DisplayError as error:
            raise SandboxError("display_unavailable", str(error)) from error

    async def size(self) -> tuple[int, int]:
        """Width and height in pixels.

        Raises:
            SandboxError: `display_unavailable`.
        """
        size: tuple[int, int] = await self._ask(lambda connection: (connection.width, connection.height))
        return size

    async def screenshot(self, kind: str = "png", quality: int | None = None) -> Screenshot:
        """The whole screen as it is now.

        Args:
            kind: png or jpeg.
            quality: 0 to 100, of a JPEG.

        Raises:
            SandboxError: `display_unavailable`, `too_large`.
        """
        if kind == "png":

            def take(connection: Connection) -> Screenshot:
                picture = connection.picture()
                return Screenshot(picture.png(), picture.width, picture.height)

            shot: Screenshot = await self._ask(take)
        else:
            width, height = await self.size()
            shot = Screenshot(await self._jpeg(80 if quality is None else max(1, quality)), width, height)
        if len(shot.data) > self._settings.screenshot_bytes:
            limit = self._settings.screenshot_bytes
            raise SandboxError(
                "too_large",
                f"the screenshot has {len(shot.data)} bytes; SANDBOX_SCREENSHOT_BYTES allows {limit}",
                hint="Ask for format=jpeg, make the desktop smaller, or raise the limit.",
            )
        return shot

    async def _jpeg(self, quality: int) -> bytes:
        def folder() -> tempfile.TemporaryDirectory[str]:
            return tempfile.TemporaryDirectory(dir=self._settings.cache, prefix="screenshot-")

        with await asyncio.to_thread(folder) as place:
            path = Path(place) / "screen.jpg"
            await self._run("scrot", "-q", str(quality), str(path))
            return await asyncio.to_thread(path.read_bytes)

    async def _run(self, *arguments: str, given: bytes | None = None, patience: float = PATIENCE_S) -> bytes:
        """Run one of X's tools.

        Raises:
            SandboxError: `display_unavailable` when the tool is missing, fails or hangs.
        """
        self._display()
        try:
            process = await asyncio.create_subprocess_exec(
                *privileges.dropped(arguments, self._environment),
                stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._environment,
            )
        except FileNotFoundError as error:
            raise SandboxError("display_unavailable", f"{arguments[0]} is not installed") from error
        try:
            output, words = await asyncio.wait_for(process.communicate(given), patience)
        except TimeoutError as error:
            raise SandboxError("display_unavailable", f"{arguments[0]} got no answer from the display") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        text = words.decode(errors="replace").strip()
        if "No such key name" in text or "no such key" in text.lower():
            raise SandboxError("invalid_request", f"the keyboard has no such key: {arguments[-1]}")
        if process.returncode:
            raise SandboxError("display_unavailable", f"{arguments[0]} failed: {text[:300] or process.returncode}")
        return output

    async def _xdotool(self, *arguments: str) -> bytes:
        return await self._run("xdotool", *arguments)

    async def pointer(self) -> tuple[int, int]:
        """Where the mouse is, in pixels from the top left."""
        lines = (await self._xdotool("getmouselocation", "--shell")).decode().splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line)
        return int(values["X"]), int(values["Y"])

    async def info(self) -> models.DesktopInfo:
        width, height = await self.size()
        x, y = await self.pointer()
        return models.DesktopInfo(
            width=width,
            height=height,
            display=self._display(),
            pointer_x=x,
            pointer_y=y,
            vnc="/vnc/index.html",
        )

    async def resize(self, width: int, height: int) -> tuple[int, int]:
        """Change the size of the desktop; windows and viewers follow. Returns the new size in pixels.

        Raises:
            SandboxError: `display_unavailable`, also when the display refuses the size.
        """
        if not self._settings.vnc_socket:
            raise SandboxError("display_unavailable", "the desktop cannot be resized: there is no VNC server")
        try:
            await asyncio.wait_for(rfb.resize(self._settings.vnc_socket, width, height), PATIENCE_S)
        except (OSError, EOFError, rfb.ProtocolError, TimeoutError) as error:
            raise SandboxError("display_unavailable", f"the desktop was not resized: {error}") from error
        return await self.size()

    async def act(self, action: models.Action) -> str:
        """Do it with mouse or keyboard, as a person would. Returns the name of what was done.

        Raises:
            SandboxError: `display_unavailable`; `invalid_request` for places off the screen and unknown keys.
        """
        if isinstance(action, models.Wait):
            self._display()
            await asyncio.sleep(action.duration)
        else:
            act: Callable[[Any], Awaitable[object]] = getattr(self, f"_{action.action_type.lower()}")
            async with self._lock:
                await act(action)
        return action.action_type

    async def _to(self, x: float | None, y: float | None) -> list[str]:
        """xdotool's words for moving there first."""
        if x is None and y is None:
            await self.size()  # says so when there is no display
            return []
        if x is None or y is None:
            raise SandboxError("invalid_request", "give both x and y, or neither")
        width, height = await self.size()
        if x >= width or y >= height:
            raise SandboxError("invalid_request", f"{x:g}, {y:g} is off the screen of {width} x {height} pixels")
        return ["mousemove", str(int(x)), str(int(y))]

    async def _move_to(self, action: models.MoveTo) -> None:
        await self._xdotool(*await self._to(action.x, action.y))

    async def _move_rel(self, action: models.MoveRel) -> None:
        await self._xdotool("mousemove_relative", "--", str(int(action.x_offset)), str(int(action.y_offset)))

    async def _click(self, action: models.Click) -> None:
        await self._clicks(action.x, action.y, action.button, action.num_clicks)

    async def _right_click(self, action: models.RightClick) -> None:
        await self._clicks(action.x, action.y, "right", 1)

    async def _double_click(self, action: models.DoubleClick) -> None:
        await self._clicks(action.x, action.y, "left", 2)

    async def _clicks(self, x: float | None, y: float | None, button: str, count: int) -> None:
        repeat = ["--repeat", str(count), "--delay", str(MULTI_CLICK_MS)]
        await self._xdotool(*await self._to(x, y), "click", *repeat, BUTTONS[button])

    async def _mouse_down(self, action: models.MouseDown) -> None:
        await self._xdotool("mousedown", BUTTONS[action.button])

    async def _mouse_up(self, action: models.MouseUp) -> None:
        await self._xdotool("mouseup", BUTTONS[action.button])

    async def _drag_to(self, action: models.DragTo) -> None:
        await self._to(action.x, action.y)
        x, y = await self.pointer()
        await self._drag(x, y, action.x - x, action.y - y)

    async def _drag_rel(self, action: models.DragRel) -> None:
        await self._drag(*await self.pointer(), action.x_offset, action.y_offset)

    async def _drag(self, x: int, y: int, dx: float, dy: float) -> None:
        # In steps: programs take a drag for one only after they have seen the mouse move.
        words = ["mousedown", "1"]
        for step in range(1, DRAG_STEPS + 1):
            place = [str(max(0, int(start + way * step / DRAG_STEPS))) for start, way in ((x, dx), (y, dy))]
            words += ["mousemove", *place, "sleep", str(DRAG_STEP_MS / 1000)]
        await self._xdotool(*words, "mouseup", "1")

    async def _scroll(self, action: models.Scroll) -> None:
        words = []
        for amount, less, more in ((action.dx, "left", "right"), (action.dy, "up", "down")):
            if amount:
                steps = max(1, round(abs(amount) / WHEEL_STEP))
                words += ["click", "--repeat", str(steps), "--delay", "4", WHEEL[more if amount > 0 else less]]
        if words:
            await self._xdotool(*words)
        else:
            self._display()

    async def _typing(self, action: models.Typing) -> None:
        if "\0" in action.text:
            raise SandboxError("invalid_request", "the text has a NUL character")
        if action.use_clipboard is not False:
            await self.set_clipboard(action.text)
            await self._xdotool("key", "--clearmodifiers", "ctrl+v")
            await asyncio.sleep(PASTE_S)
        elif len(action.text) > LONGEST_KEYED:
            raise SandboxError(
                "too_large",
                f"{len(action.text)} characters; at most {LONGEST_KEYED} are typed key by key",
                hint="Set use_clipboard, or send it in parts.",
            )
        else:
            await self._type(action.text)

    async def _type(self, text: str) -> None:
        while not text.isascii():
            keys = self._spare_keys or await self._find_spare_keys()
            loan = keys.lend(text)
            if loan.taken:
                await asyncio.sleep(SETTLE_S)
            await self._run("xmodmap", "-", given=loan.orders.encode())
            await self._type_keys(loan.text)
            text = text[len(loan.text) :]
        await self._type_keys(text)

    async def _type_keys(self, text: str) -> None:
        await self._run(
            "xdotool", "type", "--delay", str(TYPE_DELAY_MS), "--file", "-",
            given=text.encode(), patience=PATIENCE_S + len(text) * TYPE_DELAY_MS / 250,
        )  # fmt: skip

    async def _find_spare_keys(self) -> SpareKeys:
        lines = (await self._run("xmodmap", "-pke")).decode().splitlines()
        codes = [int(line.split()[1]) for line in lines if line.endswith("=")]
        if not codes:
            raise SandboxError("display_unavailable", "the keyboard has no spare key", hint="Set use_clipboard.")
        self._spare_keys = SpareKeys(codes)
        return self._spare_keys

    async def _press(self, action: models.Press) -> None:
        if len(action.key) == 1 and not action.key.isascii():
            await self._type(action.key)
        else:
            await self._xdotool("key", keysym(action.key))

    async def _key_down(self, action: models.KeyDown) -> None:
        await self._xdotool("keydown", keysym(action.key))

    async def _key_up(self, action: models.KeyUp) -> None:
        await self._xdotool("keyup", keysym(action.key))

    async def _hotkey(self, action: models.Hotkey) -> None:
        await self._xdotool("key", "+".join(keysym(key) for key in action.keys))

    async def clipboard(self) -> str:
        """Text of the clipboard; empty when it holds none.

        Raises:
            SandboxError: `display_unavailable`, `too_large`.
        """
        await self.size()
        try:
            content = await self._run("xclip", "-o", "-selection", "clipboard", "-target", "UTF8_STRING")
        except SandboxError as error:
            if "not available" in error.message:  # nobody owns it, or it is not text
                return ""
            raise
        text = content.decode(errors="replace")
        if len(text) > models.LONGEST_TEXT:
            raise SandboxError("too_large", f"the clipboard holds {len(text)} characters")
        return text

    async def set_clipboard(self, text: str) -> None:
        """Put text there, for programs of the desktop and for viewers.

        Raises:
            SandboxError: `display_unavailable`.
        """
        await self.size()
        # xclip stays for as long as it owns the selection; the one before ends by losing it.
        before = self._clipboard
        try:
            process = await asyncio.create_subprocess_exec(
                *privileges.dropped(["xclip", "-quiet", "-selection", "clipboard", "-in"], self._environment),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL, env=self._environment,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise SandboxError("display_unavailable", "xclip is not installed") from error
        assert process.stdin
        self._clipboard = process
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(text.encode())
            await process.stdin.drain()
            process.stdin.close()
        for _ in range(40):
            if process.returncode is not None:
                break
            if await self.clipboard() == text:
                if before and before.returncode is None:
                    await before.wait()
                return
            await asyncio.sleep(0.01)
        raise SandboxError("display_unavailable", "the clipboard does not take the text")

    async def _release_clipboard(self) -> None:
        if self._clipboard and self._clipboard.returncode is None:
            self._clipboard.kill()
            await self._clipboard.wait()
