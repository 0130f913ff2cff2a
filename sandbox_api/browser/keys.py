"""Names of keys, as people and models write them, for Playwright."""

from __future__ import annotations

NAMES = {
    "ctrl": "Control", "control": "Control", "cmd": "Meta", "command": "Meta", "meta": "Meta", "win": "Meta",
    "super": "Meta", "alt": "Alt", "option": "Alt", "shift": "Shift", "enter": "Enter", "return": "Enter",
    "esc": "Escape", "escape": "Escape", "tab": "Tab", "space": "Space", "spacebar": "Space",
    "backspace": "Backspace", "del": "Delete", "delete": "Delete", "ins": "Insert", "insert": "Insert",
    "home": "Home", "end": "End", "pageup": "PageUp", "page_up": "PageUp", "pagedown": "PageDown",
    "page_down": "PageDown", "up": "ArrowUp", "down": "ArrowDown", "left": "ArrowLeft", "right": "ArrowRight",
    "arrowup": "ArrowUp", "arrowdown": "ArrowDown", "arrowleft": "ArrowLeft", "arrowright": "ArrowRight",
}  # fmt: skip


def combination(keys: list[str]) -> str:
    """Such as `Control+Shift+a`. In a combination, a capital letter means the key: Control+A is Control and a."""
    words = [word for key in keys for word in (key.split("+") if len(key) > 1 else [key]) if word]
    names = [NAMES.get(word.lower(), word.upper() if _function(word) else word) for word in words]
    if len(names) > 1:
        names = [name.lower() if len(name) == 1 else name for name in names]
    return "+".join(names)


def _function(word: str) -> bool:
    return word[:1] in "fF" and word[1:].isdigit()
