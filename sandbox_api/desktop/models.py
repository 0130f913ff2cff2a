"""Requests and answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

LONGEST_TEXT = 100_000
"""Characters in one TYPING action, and in the clipboard."""

Button = Literal["left", "right", "middle"]
Coordinate = Annotated[float, Field(ge=0, le=65535, allow_inf_nan=False)]
Offset = Annotated[float, Field(ge=-65535, le=65535, allow_inf_nan=False)]
Key = Annotated[
    str,
    Field(min_length=1, max_length=40, examples=["Enter"], description="One character, or a name: enter, ctrl, F5, …"),
]
OptionalX = Annotated[Coordinate | None, Field(description="Pixels from the left; where the pointer is, if omitted.")]
OptionalY = Annotated[Coordinate | None, Field(description="Pixels from the top; where the pointer is, if omitted.")]


class MoveTo(BaseModel):
    action_type: Literal["MOVE_TO"] = "MOVE_TO"
    x: Coordinate
    y: Coordinate


class MoveRel(BaseModel):
    action_type: Literal["MOVE_REL"] = "MOVE_REL"
    x_offset: Offset
    y_offset: Offset


class Click(BaseModel):
    action_type: Literal["CLICK"] = "CLICK"
    x: OptionalX = None
    y: OptionalY = None
    button: Button = "left"
    num_clicks: Literal[1, 2, 3] = 1


class MouseDown(BaseModel):
    action_type: Literal["MOUSE_DOWN"] = "MOUSE_DOWN"
    button: Button = "left"


class MouseUp(BaseModel):
    action_type: Literal["MOUSE_UP"] = "MOUSE_UP"
    button: Button = "left"


class RightClick(BaseModel):
    action_type: Literal["RIGHT_CLICK"] = "RIGHT_CLICK"
    x: OptionalX = None
    y: OptionalY = None


class DoubleClick(BaseModel):
    action_type: Literal["DOUBLE_CLICK"] = "DOUBLE_CLICK"
    x: OptionalX = None
    y: OptionalY = None


class DragTo(BaseModel):
    action_type: Literal["DRAG_TO"] = "DRAG_TO"
    x: Coordinate
    y: Coordinate


class DragRel(BaseModel):
    action_type: Literal["DRAG_REL"] = "DRAG_REL"
    x_offset: Offset
    y_offset: Offset


class Scroll(BaseModel):
    action_type: Literal["SCROLL"] = "SCROLL"
    dx: int = Field(0, ge=-10_000, le=10_000, description="Pixels, about; positive scrolls to the right.")
    dy: int = Field(0, ge=-10_000, le=10_000, description="Pixels, about; positive scrolls down.")


class Typing(BaseModel):
    action_type: Literal["TYPING"] = "TYPING"
    text: str = Field(min_length=1, max_length=LONGEST_TEXT)
    use_clipboard: bool | None = Field(
        True,
        description="Paste it, which takes any script and replaces the clipboard. False presses a key per character.",
    )


class Press(BaseModel):
    action_type: Literal["PRESS"] = "PRESS"
    key: Key


class KeyDown(BaseModel):
    action_type: Literal["KEY_DOWN"] = "KEY_DOWN"
    key: Key


class KeyUp(BaseModel):
    action_type: Literal["KEY_UP"] = "KEY_UP"
    key: Key


class Hotkey(BaseModel):
    action_type: Literal["HOTKEY"] = "HOTKEY"
    keys: list[Key] = Field(min_length=1, max_length=8, examples=[["ctrl", "l"]])


class Wait(BaseModel):
    action_type: Literal["WAIT"] = "WAIT"
    duration: float = Field(gt=0, le=300, allow_inf_nan=False, description="Seconds.")


Action = Annotated[
    MoveTo
    | MoveRel
    | Click
    | MouseDown
    | MouseUp
    | RightClick
    | DoubleClick
    | DragTo
    | DragRel
    | Scroll
    | Typing
    | Press
    | KeyDown
    | KeyUp
    | Hotkey
    | Wait,
    Field(discriminator="action_type"),
]


class RecordRequest(BaseModel):
    action: Literal["start", "stop", "status"]
    save_path: str | None = Field(
        None, description="Absolute, .mp4 or .mkv [recordings/recording_DATE_TIME.mp4 in the workspace]."
    )
    fps: int = Field(5, gt=0, le=30, description="Pictures per second.")
    crf: int = Field(28, ge=0, le=51, description="Quality of H.264: 0 loses nothing, 51 is worst.")
    max_duration: float = Field(600, gt=0, le=24 * 3600, allow_inf_nan=False, description="Seconds until it ends.")
    width: int | None = Field(None, gt=0, le=7680, description="Pixels of the video [those of the screen].")
    height: int | None = Field(None, gt=0, le=4320, description="Pixels of the video [those of the screen].")


class RecordResult(BaseModel):
    status: Literal["idle", "recording", "stopped"]
    save_path: str | None = None
    duration: float = Field(0, description="Seconds.")
    file_size_bytes: int | None = None


class Clipboard(BaseModel):
    text: str = Field(max_length=LONGEST_TEXT)


class DesktopInfo(BaseModel):
    width: int
    height: int
    display: str
    pointer_x: int
    pointer_y: int
    vnc: str = Field(description="Path of the page on which people see and use the desktop.")
