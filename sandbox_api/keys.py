"""Names of keys as people, models and automation libraries write them."""

from __future__ import annotations

ALIASES = {
    "return": "enter", "esc": "escape", "spacebar": "space", "del": "delete", "ins": "insert",
    "pgup": "pageup", "pgdn": "pagedown", "arrowup": "up", "arrowdown": "down", "arrowleft": "left",
    "arrowright": "right", "ctrl": "control", "ctrlleft": "control", "ctrlright": "controlright", "shiftleft": "shift",
    "altleft": "alt", "option": "alt", "win": "meta", "winleft": "meta", "winright": "metaright", "super": "meta",
    "cmd": "meta", "command": "meta", "contextmenu": "menu", "prtsc": "printscreen",
}  # fmt: skip


def canonical(key: str) -> str:
    """One spelling of a key's name: `Page Down`, `page_down` and `PgDn` are the same key."""
    plain = key.strip().lower().replace(" ", "").replace("-", "").replace("_", "")
    return ALIASES.get(plain, plain)
