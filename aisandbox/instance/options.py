"""The user's choice: read from every place it can be given, checked against the manifest's options.

A bad value never discards the good ones: it becomes a `Problem`, and the next place, or the default, decides.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from pydantic import SecretStr

from aisandbox.instance.notices import Problem
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest, Option, Part

SECTION = "aisandbox"
"""Key of our section in cloud-init's user-data."""
MASK = "********"


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
    sandbox: Literal["off", "local", "public"] = "local"
    data_volume: str | None = None
    hub_endpoint: str | None = None


class InvalidOptionError(Exception):
    """A value that breaks its option's rules. `reason` says which, `fix` what would be right."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


@dataclass(frozen=True)
class Source:
    """One place where options were given, and what went wrong while reading it."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def sources(places: Places) -> list[Source]:
    """Every place that gives options, the most important first."""
    own = list(_options_file(places))
    given = [*own, *_cloud_config(places)]
    # User-data cannot be corrected after the deployment; who has chosen in the file since has dealt with it.
    if not any(source.values for source in own):
        given.append(Source("user-data", problems=tuple(_ignored_parts(places))))
    return given


def choose(given: list[Source], manifest: Manifest) -> tuple[Choice, tuple[Problem, ...]]:
    """The choice that the sources make together, and every problem found on the way."""
    decided: dict[str, str | int | None] = {}
    problems = [problem for source in given for problem in source.problems]
    for source in given:
        earlier = set(decided)  # what a more important source has settled is no problem any more
        for key, raw in source.values.items():
            option = manifest.options_by_key.get(key)
            if option is None:
                if nearest(key, manifest) not in earlier:
                    problems.append(_unknown(key, source.name, manifest))
            elif key not in earlier:
                try:
                    decided[key] = check(option, raw)
                except InvalidOptionError as invalid:
                    problems.append(problem(option, raw, invalid, source.name))
    return Choice.model_validate({key: value for key, value in decided.items() if value is not None}), tuple(problems)


def read(places: Places, manifest: Manifest) -> tuple[Choice, tuple[Problem, ...]]:
    """The user's choice on this instance, and every problem found on the way."""
    return choose(sources(places), manifest)


def check(option: Option, raw: object) -> str | int | None:
    """The option's value; None and empty text mean its default.

    Raises:
        InvalidOptionError: the value breaks the option's rules (those of `Option.schema_`).
    """
    example = "" if option.example is None else f" such as {option.example}"
    fix = f"Give {option.label.lower()}{example}."
    if raw is None:
        return None
    # A float or a boolean is no slip that can be repaired: YAML has already changed what was written.
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise InvalidOptionError(
            f"is not {'a whole number' if option.type == 'integer' else 'text'}", f"{fix} Put it in quotes."
        )
    text = str(raw).strip()
    if not text:
        return None
    if option.type != "integer":
        if option.choices and text not in option.choices:
            raise InvalidOptionError(
                f"is none of {', '.join(option.choices)}", f"Give one of {', '.join(option.choices)}."
            )
        if option.pattern and not re.search(option.pattern, text):
            raise InvalidOptionError(f"is not a valid {option.label.lower()}", fix)
        return text
    try:
        number = int(text)
    except ValueError:
        raise InvalidOptionError("is not a whole number", fix) from None
    if option.minimum is not None and number < option.minimum:
        raise InvalidOptionError(f"is less than {option.minimum}", fix)
    if option.maximum is not None and number > option.maximum:
        raise InvalidOptionError(f"is more than {option.maximum}", fix)
    return number


def shown(option: Option, raw: object) -> str:
    """The value as it may be shown: secrets are masked, long values cut."""
    return MASK if option.type == "secret" else str(raw)[:100]


def problem(option: Option, raw: object, invalid: InvalidOptionError, source: str | None = None) -> Problem:
    """The problem that an invalid value makes."""
    command = f"aisandbox configure --set {option.key}={'VALUE' if option.example is None else option.example}"
    return Problem(
        option=option.key,
        value=shown(option, raw),
        reason=invalid.reason,
        fix=f"{invalid.fix} Command: sudo {command}",
        source=source,
    )


def nearest(key: object, manifest: Manifest) -> str | None:
    """The option whose name is nearest to a key that is none."""
    close = difflib.get_close_matches(str(key), manifest.options_by_key, n=1, cutoff=0.5)
    return close[0] if close else None


def advice(key: object, manifest: Manifest) -> str:
    """What to do about a key that is no option."""
    near = nearest(key, manifest)
    if near:
        return f"Did you mean {near}? Command: sudo aisandbox configure --set {near}=VALUE"
    return f"The options are {', '.join(manifest.options_by_key)}."


def _unknown(key: object, source: str, manifest: Manifest) -> Problem:
    # The value is left out: it may be a secret under a misspelt key.
    return Problem(option=str(key)[:50], reason="there is no such option", fix=advice(key, manifest), source=source)


def _parse(text: str, name: str) -> tuple[Any, Problem | None]:
    """The YAML in the text, or the problem with it and the line where it is."""
    try:
        return yaml.safe_load(text), None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        fix = "Correct the line: options are written as `key: value`, one on each line, without tabs."
        return None, Problem(reason=f"{line}not YAML: {what}", fix=fix, source=name)


def _mapping(value: Any, name: str) -> Source:
    if value is None:
        return Source(name)
    if isinstance(value, dict):
        return Source(name, value)
    reason = f"holds a {type(value).__name__}, not `key: value` lines"
    return Source(name, problems=(Problem(reason=reason, fix="Write `key: value` lines.", source=name),))


def _options_file(places: Places) -> Iterator[Source]:
    try:
        text = places.options.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    value, fault = _parse(text, str(places.options))
    if fault:
        yield Source(str(places.options), problems=(fault,))
        return
    # The section as in user-data is as good as its bare content.
    if isinstance(value, dict) and set(value) == {SECTION}:
        value = value[SECTION]
    yield _mapping(value, str(places.options))


def _cloud_config(places: Places) -> Iterator[Source]:
    """Our section of what cloud-init has merged.

    Newer versions document one file that holds user-data and vendor-data merged; before, each has its own.
    """
    combined = places.cloud_run / "combined-cloud-config.json"
    if combined.exists():
        try:
            section = json.loads(combined.read_bytes()).get(SECTION)
        except (ValueError, AttributeError):
            section = None
        yield _mapping(section, "user-data")
    else:
        for file, name in (
            ("cloud-config.txt", "user-data"),
            ("vendor2-cloud-config.txt", "vendor-data"),
            ("vendor-cloud-config.txt", "vendor-data"),
        ):
            path = places.cloud_instance / file
            if path.exists():
                value, _ = _parse(path.read_text(encoding="utf-8", errors="replace"), name)
                yield _mapping(value.get(SECTION) if isinstance(value, dict) else None, name)


def _ignored_parts(places: Places) -> Iterator[Problem]:
    """Parts of the user-data that cloud-init silently leaves out of what it merges."""
    try:
        message_text = (places.cloud_instance / "user-data.txt.i").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if SECTION not in message_text and "cloud-config" not in message_text:
        return
    import email  # only needed with user-data

    parts = [part for part in email.message_from_string(message_text).walk() if not part.is_multipart()]
    for part in parts:
        payload = part.get_payload(decode=True)
        text = payload.decode(errors="replace") if isinstance(payload, bytes) else ""
        name = "user-data" if len(parts) == 1 else f"user-data, {part.get_filename('part')}"
        if part.get_content_type() == "text/cloud-config":
            _, fault = _parse(text, name)
            if fault:
                yield fault
        elif re.search(rf"^{SECTION}:", text, re.MULTILINE) and not text.startswith(("#!", "## template:")):
            reason = f"its {SECTION} section is ignored, because the first line is not #cloud-config"
            fix = "Make #cloud-config the first line of the user-data."
            yield Problem(reason=reason, fix=fix, source=name)
