"""Names of keys for Playwright."""

from __future__ import annotations

from sandbox_api.keys import canonical

NAMES = {
    "control": "Control", "meta": "Meta", "alt": "Alt", "shift": "Shift", "enter": "Enter", "escape": "Escape",
    "tab": "Tab", "space": "Space", "backspace": "Backspace", "delete": "Delete", "insert": "Insert", "home": "Home",
    "end": "End", "pageup": "PageUp", "pagedown": "PageDown", "up": "ArrowUp", "down": "ArrowDown",
    "left": "ArrowLeft", "right": "ArrowRight",
}  # fmt: skip


def combination(keys: list[str]) -> str:
    """Such as `Control+Shift+a`. In a combination, a capital letter means the key: Control+A is Control and a."""
    words = [word for key in keys for word in (key.split("+") if len(key) > 1 else [key]) if word]
    names = [NAMES.get(canonical(word), word.upper() if _is_function_key(word) else word) for word in words]
    if len(names) > 1:
        names = [name.lower() if len(name) == 1 else name for name in names]
    return "+".join(names)


def _is_function_key(word: str) -> bool:
    return word[:1] in "fF" and word[1:].isdigit()
