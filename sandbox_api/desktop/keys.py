"""Names of keys for X, and keys for characters that the keyboard does not have."""

from __future__ import annotations

import re
from typing import NamedTuple

from sandbox_api.errors import SandboxError
from sandbox_api.keys import canonical

NAMES = {
    "enter": "Return", "escape": "Escape", "tab": "Tab", "space": "space", "backspace": "BackSpace",
    "delete": "Delete", "insert": "Insert", "home": "Home", "end": "End", "pageup": "Prior", "pagedown": "Next",
    "up": "Up", "down": "Down", "left": "Left", "right": "Right", "control": "Control_L", "controlright": "Control_R",
    "shift": "Shift_L", "shiftright": "Shift_R", "alt": "Alt_L", "altright": "Alt_R", "meta": "Super_L",
    "metaright": "Super_R", "menu": "Menu", "capslock": "Caps_Lock", "numlock": "Num_Lock",
    "scrolllock": "Scroll_Lock", "printscreen": "Print", "pause": "Pause", "multiply": "KP_Multiply", "add": "KP_Add",
    "subtract": "KP_Subtract", "decimal": "KP_Decimal", "divide": "KP_Divide",
    **{f"f{number}": f"F{number}" for number in range(1, 25)},
    **{f"num{digit}": f"KP_{digit}" for digit in range(10)},
}  # fmt: skip
SYMBOL = re.compile(r"[A-Za-z0-9_]{2,40}")


def keysym(key: str) -> str:
    """X's name of `key`.

    Raises:
        SandboxError: `invalid_request` for what cannot be a key's name.
    """
    if len(key) == 1 and key.isprintable():
        return key if key.isascii() and key.isalnum() else f"U{ord(key):04X}"
    if known := NAMES.get(canonical(key)):
        return known
    if SYMBOL.fullmatch(key):
        return key
    raise SandboxError(
        "invalid_request",
        f"there is no key {key!r}",
        hint="Give one character, or a name such as enter, ctrl, pagedown or F5.",
    )


class KeyLoan(NamedTuple):
    text: str
    """What can be typed now."""
    orders: str
    """To xmodmap, before that."""
    taken: bool
    """Whether characters typed earlier lose their keys."""


class SpareKeys:
    """Keys without a meaning, for characters that the keyboard does not have.

    A character keeps its key until another needs it: a program that is busy looks up what was typed only later.
    """

    def __init__(self, codes: list[int]) -> None:
        self._most = len(codes)
        self._free = codes
        self._codes = dict[str, int]()
        """The character whose turn was the longest ago comes first."""

    def lend(self, text: str) -> KeyLoan:
        """As much from the start of `text` as there are keys for."""
        needed, end = dict[str, None](), len(text)
        for at, character in enumerate(text):
            if not character.isascii() and character not in needed:
                if len(needed) == self._most:
                    end = at
                    break
                needed[character] = None
        for character in needed.keys() & self._codes.keys():
            self._codes[character] = self._codes.pop(character)
        taken = False
        for character in needed.keys() - self._codes.keys():
            if self._free:
                self._codes[character] = self._free.pop()
            else:
                self._codes[character] = self._codes.pop(next(iter(self._codes)))
                taken = True
        orders = "".join(f"keycode {self._codes[character]} = U{ord(character):04X}\n" for character in needed)
        return KeyLoan(text[:end], orders, taken)
