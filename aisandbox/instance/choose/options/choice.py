"""The checked choice, and how the sources make it together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from pydantic import SecretStr

from aisandbox.instance.choose.options import rules
from aisandbox.instance.choose.options.errors import InvalidOptionError
from aisandbox.instance.choose.options.source import GUARDS, Source, guards_within
from aisandbox.instance.problem import Problem
from aisandbox.manifest import Manifest, Part

MAX_KEYS = 200
"""Most keys of one source that are looked at."""


class Choice(Part):
    """The checked choice, one field for each option of the manifest; None leaves it to the appliance."""

    model: str | None = None
    revision: str | None = None
    hf_token: SecretStr | None = None
    served_name: str | None = None
    max_model_len: int | None = None
    quantization: str | None = None
    vllm_args: str | None = None
    api_key: SecretStr | None = None
    chat_email: str | None = None
    chat_password: SecretStr | None = None
    allowed_cidrs: str | None = None
    domain: str | None = None
    tls_email: str | None = None
    host_names: str | None = None
    sandbox: Literal["off", "local", "public"] = "local"
    data_volume: str | None = None
    hub_endpoint: str | None = None

    closed: frozenset[str] = frozenset()
    """Guards that were meant to be set and hold no valid value.

    The field of `api_key`, `chat_password` and `allowed_cidrs` is None, and yet the door must stay shut: the API and
    the chat page ask for a generated key and password, and with `allowed_cidrs` here nobody but loopback gets in. When
    only some of the networks are valid, the field holds those, and `closed` does not name it. `sandbox` is off.
    """


@dataclass(frozen=True)
class Decision:
    """What the sources came to."""

    choice: Choice
    problems: tuple[Problem, ...]
    origins: Mapping[str, str]
    """Name of the source that decided, by option; options that nobody chose are missing."""


@dataclass(frozen=True)
class Unavailable:
    """Why an option cannot be had on an instance, and what to do instead."""

    reason: str
    fix: str
    guards: frozenset[str] = frozenset()
    """Guards that close the doors in its place, unless they are chosen, too."""


def decide(
    given: Iterable[Source], manifest: Manifest, unavailable: Mapping[str, Unavailable] | None = None
) -> Decision:
    """The choice that the sources make together, the most important first, and every problem found on the way.

    Args:
        unavailable: options that cannot be had on this instance.
    """
    decided: dict[str, str | int | None] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    meant: set[str] = set()  # guards that somebody tried to set
    instead: set[str] = set()  # guards that stand in for one that cannot be had
    unavailable = unavailable or {}
    for source in given:
        problems += source.problems
        earlier = set(decided)  # what a more important source has settled is no problem any more
        meant |= source.lost - earlier - set(unavailable)
        instead |= {guard for key in source.lost & set(unavailable) for guard in unavailable[key].guards}
        for key, raw in islice(source.values.items(), MAX_KEYS):
            option = manifest.options_by_key.get(key)
            if option is None:
                if rules.nearest(key, manifest) not in earlier:
                    problems.append(rules.unknown(key, source.name, manifest))
                    meant |= rules.guards_meant(key, manifest) | guards_within(raw)
            elif key in unavailable:
                if key not in earlier and raw not in (None, ""):
                    why = InvalidOptionError(unavailable[key].reason, unavailable[key].fix)
                    told = rules.problem(option, raw, why, source.name)
                    problems.append(replace(told, fix=unavailable[key].fix))
                    instead |= unavailable[key].guards
                # Said once is enough.
                decided[key] = None
            elif key not in earlier:
                value: str | int | None
                try:
                    value = rules.check(option, raw)
                except InvalidOptionError as invalid:
                    problems.append(rules.problem(option, raw, invalid, source.name))
                    value = invalid.usable
                    if value is None:
                        meant |= {key} & GUARDS
                        continue
                decided[key], origins[key] = value, source.name
    chosen = {key: value for key, value in decided.items() if value is not None}
    if "chat_email" in chosen and "chat_password" not in chosen:
        meant.add("chat_password")
    problems += _lonely(chosen, manifest)
    problems += (_closed(key, manifest) for key in sorted(meant - set(chosen)))
    closed = frozenset((meant | instead) - set(chosen))
    if "sandbox" in closed:
        chosen["sandbox"] = "off"
    choice = Choice.model_validate({**chosen, "closed": closed})
    return Decision(choice, tuple(problems), {key: origins[key] for key in manifest.options_by_key if key in origins})


def _lonely(chosen: Mapping[str, object], manifest: Manifest) -> Iterator[Problem]:
    """Options that need another."""
    for key, needed in (("chat_email", "chat_password"), ("tls_email", "domain")):
        if key in chosen and needed not in chosen:
            option = manifest.options_by_key[needed]
            yield Problem(
                option=key,
                value=rules.shown(manifest.options_by_key[key], chosen[key]),
                reason=f"says nothing without {needed}",
                fix=f"Set it: sudo aisandbox configure --set {needed}={option.example or '-'} "
                f"Or do without: sudo aisandbox configure --unset {key}",
            )


_INSTEAD = {
    "api_key": "the API asks for a generated key, which `sudo aisandbox keys` shows",
    "chat_password": "the chat page asks for a generated password, which `sudo aisandbox keys` shows",
    "allowed_cidrs": "nobody reaches chat, API and sandbox but this instance itself (SSH is not affected)",
    "sandbox": "the sandbox is off",
}


def _closed(key: str, manifest: Manifest) -> Problem:
    option = manifest.options_by_key[key]
    example = option.example or option.default
    value = "-" if example is None else f"'{example}'"
    return Problem(
        option=key,
        reason=f"was meant to be set and has no valid value, so {_INSTEAD[key]}",
        fix=f"Set it: sudo aisandbox configure --set {key}={value} "
        f"Or {'take the default' if key == 'sandbox' else 'open to everyone'}: sudo aisandbox configure --unset {key}",
    )
