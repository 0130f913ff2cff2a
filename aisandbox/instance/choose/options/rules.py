"""The rules of one option's value, and the words for a value that breaks them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from aisandbox.instance.choose.options.errors import InvalidOptionError
from aisandbox.instance.choose.options.source import GUARDS
from aisandbox.instance.problem import Problem, printable
from aisandbox.manifest import MAX_LENGTH, Manifest, Option

MASK = "********"
MAX_ENTRIES = 64
"""Most networks or names of one option."""
OFF = ("off", "no", "n", "false")
"""What YAML 1.1 takes for false."""
CLOSE = 0.75
"""Likeness from which an unknown key counts as a misspelt guard."""
GREATEST = 2**63
"""No number is larger; Python refuses to write very large ones out."""
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST_NAME = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)*{_LABEL}")


def check(option: Option, raw: object) -> str | int | None:
    """The option's value; None and empty text mean its default.

    Raises:
        InvalidOptionError: the value breaks the option's rules (those of `Option.schema_`, and more for networks,
            names and arguments).
    """
    example = "" if option.example is None else f" such as {option.example}"
    fix = f"Give {option.label.lower()}{example}."
    if raw is None:
        return None
    if option.type in ("cidrs", "names") and isinstance(raw, list) and all(isinstance(entry, str) for entry in raw):
        # An empty list of networks is no network, not every one.
        raw = ",".join(raw) or ("," if option.type == "cidrs" else "")
    if "off" in (option.choices or ()) and (raw is False or (isinstance(raw, str) and raw.strip().lower() in OFF)):
        return "off"
    if isinstance(raw, int) and option.type == "secret":
        raise InvalidOptionError("is a number, so YAML may have changed what was typed", f"{fix} Put it in quotes.")
    # A float or a boolean is no slip that can be repaired: YAML has already changed what was written.
    if isinstance(raw, bool) or not isinstance(raw, str | int) or (isinstance(raw, int) and abs(raw) > GREATEST):
        raise InvalidOptionError(
            f"is not {'a whole number' if option.type == 'integer' else 'text'}", f"{fix} Put it in quotes."
        )
    text = str(raw).strip()
    if not text:
        return None
    if len(text) > MAX_LENGTH:
        raise InvalidOptionError(f"is longer than {MAX_LENGTH} characters", fix)
    match option.type:
        case "integer":
            return _integer(option, text, fix)
        case "cidrs":
            return _entries(text, _network, "network", fix)
        case "names":
            return _entries(text, _listed_name, "name", fix)
        case "arguments":
            from aisandbox.instance.choose.options import arguments

            return arguments.check(text)
    if option.choices and text not in option.choices:
        raise InvalidOptionError(f"is none of {', '.join(option.choices)}", f"Give one of {', '.join(option.choices)}.")
    if option.pattern and not re.search(option.pattern, text):
        raise InvalidOptionError(f"is not a valid {option.label.lower()}", fix)
    return text


def _integer(option: Option, text: str, fix: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise InvalidOptionError("is not a whole number", fix)
    number = int(text)
    if option.minimum is not None and number < option.minimum:
        raise InvalidOptionError(f"is less than {option.minimum}", fix)
    if option.maximum is not None and number > option.maximum:
        raise InvalidOptionError(f"is more than {option.maximum}", fix)
    return number


def _entries(text: str, read: Callable[[str], str], noun: str, fix: str) -> str:
    """What a list holds, each entry once and in the usual spelling. Faults of single ones leave the others usable."""
    good: dict[str, None] = {}
    faults: list[str] = []
    entries = [entry for entry in re.split(r"[, \t\r\n\xa0]+", text) if entry]
    for entry in entries[:MAX_ENTRIES]:
        try:
            good[read(entry)] = None
        except ValueError as fault:
            faults.append(f"{printable(entry)[:50]} {fault}")
    if len(entries) > MAX_ENTRIES:
        faults.append(f"holds more than {MAX_ENTRIES} {noun}s; the first {MAX_ENTRIES} count")
    if not entries:
        faults.append(f"holds no {noun}")
    usable = ",".join(good)
    if faults:
        raise InvalidOptionError("; ".join(faults), fix, usable or None)
    return usable


def _network(entry: str) -> str:
    """A network or a single address, IPv4 or IPv6.

    Raises:
        ValueError: it is none; the message says why.
    """
    import ipaddress

    try:
        network = ipaddress.ip_network(entry.partition("%")[0], strict=False)
    except ValueError:
        raise ValueError("is no network or address") from None
    if "%" in entry:  # the name of an interface, which may be any text
        raise ValueError("is no network: leave out what follows the %")
    try:
        return str(ipaddress.ip_network(entry))
    except ValueError:
        raise ValueError(f"is an address inside the network {network}") from None


def host_name(text: str) -> str | None:
    """The host name in one spelling; None for what is none."""
    name = text.lower().removesuffix(".")
    return name if HOST_NAME.fullmatch(name) else None


def _listed_name(entry: str) -> str:
    """A host name, or `*.` and a name for all that lie under it.

    Raises:
        ValueError: it is none; the message says why.
    """
    import ipaddress

    try:
        ipaddress.ip_address(entry.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError("is an address, and addresses need no entry")
    under = "*." if entry.startswith("*.") else ""
    name = host_name(entry.removeprefix(under))
    if name and len(under + name) <= 253 and (not under or "." in name):
        return under + name
    if "/" in entry or ":" in entry:
        raise ValueError("is more than a name: leave out scheme, port and path")
    if under and name:
        raise ValueError("would be every name of a top-level domain")
    spelling = "" if entry.isascii() else ": write it as browsers send it (xn--)"
    raise ValueError(f"is not a host name{spelling}")


def shown(option: Option, raw: object) -> str:
    """The value as it may be shown: secrets are masked, also those in the wrong place, and long values cut."""
    if option.type == "secret":
        return MASK
    if isinstance(raw, list | dict | set | tuple):  # few lines of YAML can make one that fills the memory
        return f"a {type(raw).__name__}"
    if isinstance(raw, int) and abs(raw) > GREATEST:
        return "a number"
    if option.type == "arguments":  # a value may be a secret that was given to a refused argument
        return " ".join(re.findall(r"--[A-Za-z0-9_-]+", str(raw)[:MAX_LENGTH]))[:100]
    text = re.sub(r"hf_\w{8,}", MASK, printable(str(raw)[:300]))
    return re.sub(r"//[^/@\s]*@", f"//{MASK}@", text)[:100]


def problem(option: Option, raw: object, invalid: InvalidOptionError, source: str | None = None) -> Problem:
    """The problem that an invalid value makes."""
    value = f"'{option.example}'" if " " in str(option.example) else option.example
    command = f"aisandbox configure --set {option.key}={'VALUE' if value is None else value}"
    return Problem(
        option=option.key,
        value=shown(option, raw),
        reason=invalid.reason,
        fix=f"{invalid.fix} Command: sudo {command}",
        source=source,
    )


def nearest(key: object, manifest: Manifest, cutoff: float = 0.5) -> str | None:
    """The option whose name is nearest to a key that is none."""
    close = difflib.get_close_matches(_name(key).lower(), manifest.options_by_key, n=1, cutoff=cutoff)
    return close[0] if close else None


def guards_meant(key: object, manifest: Manifest) -> frozenset[str]:
    """Guards that a key which is no option may mean: those that it resembles, and those with whose word it ends."""
    words = re.split(r"[^a-z]+", _name(key).lower())
    return frozenset(
        guard
        for guard in GUARDS
        if nearest(key, manifest, CLOSE) == guard or guard.rpartition("_")[2].rstrip("s") == words[-1].rstrip("s")
    )


def _name(key: object) -> str:
    return printable(key)[:50] if isinstance(key, str) else type(key).__name__


def advice(key: object, manifest: Manifest) -> str:
    """What to do about a key that is no option."""
    near = nearest(key, manifest)
    if near:
        return f"Did you mean {near}? Command: sudo aisandbox configure --set {near}=VALUE"
    return f"The options are {', '.join(manifest.options_by_key)}."


def unknown(key: object, source: str, manifest: Manifest) -> Problem:
    """The problem that an unknown key makes. The value is left out: it may be a secret under a misspelt key."""
    return Problem(option=_name(key), reason="there is no such option", fix=advice(key, manifest), source=source)
