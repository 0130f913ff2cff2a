"""Options from a form's variables (StackScript) and from the kernel's command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from aisandbox.instance.choose.options.source import SECTION, Source
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest

MAX_BYTES = 256 * 1024
_LINE = re.compile(r"(?:export |declare -x )?([A-Za-z_]\w{0,99})=(.*)", re.ASCII)
FORM_SUFFIX = "_password"


def stackscript(places: Places, manifest: Manifest) -> Iterator[Source]:
    """`/etc/aisandbox/udf.env`, where our StackScript keeps its environment: lines as of `env` or `export -p`.

    It holds the whole environment, so keys that are no options are none of ours. A form masks only fields whose
    name has "password" in it; a secret may therefore come as `api_key_password`, too. Nothing is executed.
    """
    try:
        text = places.udf.read_bytes()[:MAX_BYTES].decode(errors="replace")
    except OSError:
        return
    values: dict[str, str] = {}
    for line in text.split("\n"):  # as shells do; other separators belong to a value
        match = _LINE.fullmatch(line.strip())
        if not match:
            continue
        key, value = match[1].lower().removeprefix(f"{SECTION}_"), unquoted(match[2])
        if key not in manifest.options_by_key:
            key = key.removesuffix(FORM_SUFFIX)
        if key in manifest.options_by_key and value.strip():
            values[key] = value
    yield Source("StackScript", values)


def unquoted(value: str) -> str:
    """A shell's word as its value, for the ways in which shells print variables; other text is taken as it is."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r'\\(["\\$`!])', r"\1", value[1:-1])
    if value.startswith("'") and value.endswith("'"):
        try:
            return "".join(shlex.split(value))
        except ValueError:
            return value
    return value


def kernel(places: Places) -> Iterator[Source]:
    """`aisandbox.KEY=VALUE` on the kernel's command line, for local machines."""
    try:
        text = places.kernel_command_line.read_bytes()[:MAX_BYTES].decode(errors="replace")
    except OSError:
        return
    # The kernel knows double quotes only, around the value or the whole word.
    words = (word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', text))
    pairs = (word.removeprefix(f"{SECTION}.").partition("=") for word in words if word.startswith(f"{SECTION}."))
    values = {key.replace("-", "_"): value for key, _, value in pairs}
    if values:
        yield Source("kernel command line", values)
