"""`aisandbox configure`: from the user's choice to a plan and the services' environment files.

Runs at every boot and after every change. It is idempotent, and bad input never stops it: what cannot be done
is recorded as a problem, and the appliance comes up on a safe plan.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from aisandbox.instance import files, hardware, options, plan, rendering, systemd
from aisandbox.instance.notices import Problem, warnings
from aisandbox.instance.options import Choice, InvalidOptionError
from aisandbox.instance.places import Places
from aisandbox.instance.plan import Plan
from aisandbox.instance.report import Reporter
from aisandbox.manifest import Manifest

SECRETS = ("webui_secret_key", "admin_password")
"""Generated once on every instance and kept in the data directory."""

HEADER = "# Your choices, one `option: value` on each line. To apply a change: sudo aisandbox configure\n"


@dataclass(frozen=True)
class Outcome:
    """What a run of `apply` came to."""

    plan: Plan
    changed: tuple[str, ...]
    """Names of the files that changed."""


def apply(places: Places, manifest: Manifest) -> Outcome:
    """Read the choice, plan, and bring every rendered file up to date."""
    report = Reporter(places.status("configure"), quiet=True)
    given, found = options.read(places, manifest)
    decided = plan.decide(given, found, manifest, hardware.find(places))
    changed = _write(places, manifest, given, decided)
    if decided.problems:
        count = len(decided.problems)
        noun = "problem" if count == 1 else "problems"
        message = f"{count} {noun} with the configuration; planned {decided.model}. {decided.problems[0]}."
        report.failed("configure", message, decided.problems[0].fix)
    else:
        report.done("configure", f"Configured to serve {decided.model}.")
    return Outcome(decided, changed)


def apply_safely(places: Places, manifest: Manifest) -> Outcome:
    """`apply` for the boot: should it fail in an unforeseen way, plan as if nothing had been chosen."""
    try:
        return apply(places, manifest)
    except Exception as error:
        problem = Problem(
            reason=f"the choice could not be applied ({type(error).__name__}: {error}); the default is used",
            fix=f"See the journal: sudo journalctl -u {systemd.CONFIGURE}",
        )
        decided = plan.decide(Choice(), (problem,), manifest, hardware.find(places))
        files.write_json(places.plan, decided.model_dump(mode="json"))
        Reporter(places.status("configure"), quiet=True).failed("configure", str(problem), problem.fix)
        return Outcome(decided, (places.plan.name,))


def services_to_restart(places: Places, outcome: Outcome) -> tuple[str, ...]:
    """Services that run on what has changed; the model's also when it failed, since its cause may be gone."""
    services = [entry.unit for entry in rendering.RENDERED if entry.file in outcome.changed]
    failed = (files.read_json(places.status("model")) or {}).get("state") == "failed"
    if failed or {places.plan.name, places.hf_token.name} & set(outcome.changed):
        services.insert(0, systemd.MODEL)
    return tuple(services)


@dataclass(frozen=True)
class Edit:
    """A checked change of the options file."""

    text: str
    diff: str
    """What changes, line by line, without secrets; empty when nothing does."""


def edit(places: Places, manifest: Manifest, values: Mapping[str, str], unset: tuple[str, ...] = ()) -> Edit:
    """Check a change of the options file, without making it.

    Raises:
        InvalidOptionError: an option is unknown or its value breaks its rules, or the file cannot be understood.
    """
    sources = options.sources(places)
    name = str(places.options)
    own = next((source for source in sources if source.name == name), options.Source(name))
    if own.problems:
        fault = own.problems[0]
        raise InvalidOptionError(str(fault), fault.fix)
    after: dict[str, Any] = dict(own.values)
    for key in (*values, *unset):
        if key not in manifest.options_by_key:
            raise InvalidOptionError(f"There is no option {key}.", options.advice(key, manifest))
    for key, raw in values.items():
        option = manifest.options_by_key[key]
        try:
            after[key] = options.check(option, raw)
        except InvalidOptionError as invalid:
            raise InvalidOptionError(f"{key}: {options.shown(option, raw)!r} {invalid.reason}.", invalid.fix) from None
    for key in unset:
        after.pop(key, None)
        # An empty entry hides what the user-data chose.
        if any(key in source.values for source in sources if source is not own):
            after[key] = None
    secret = {option.key for option in manifest.options if option.type == "secret"}
    return Edit(HEADER + _dump(after), _diff(own.values, after, secret))


def save(places: Places, change: Edit) -> None:
    """Make a checked change."""
    files.write(places.options, change.text, 0o600)


def _dump(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True) if values else ""


def _diff(before: Mapping[str, Any], after: Mapping[str, Any], secret: set[str]) -> str:
    lines = []
    for key in dict.fromkeys((*before, *after)):
        old, new = (_dump({key: values[key]}) if key in values else "" for values in (before, after))
        if old != new:
            lines += [
                f"{sign}{key}: {options.MASK}" if key in secret else f"{sign}{text.rstrip()}"
                for sign, text in (("-", old), ("+", new))
                if text
            ]
    return "\n".join(lines)


def _write(places: Places, manifest: Manifest, given: Choice, decided: Plan) -> tuple[str, ...]:
    """Write everything that follows from the plan. Returns the names of the files that changed."""
    for folder in (places.secrets, places.hf_token.parent):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    token = given.hf_token.get_secret_value() if given.hf_token else ""
    texts = {places.hf_token: token}
    context = {
        "manifest": manifest,
        "plan": decided,
        "release": files.read_json(places.release) or {},
        "secrets": {name: _secret(places, name) for name in SECRETS},
        "choice": given,
        "warnings": warnings(manifest, decided.access),
    }
    changed = [path.name for path, text in texts.items() if files.write(path, text, 0o600)]
    changed += [entry.file for entry in rendering.write(places, context)]
    # The plan comes last: whoever sees it finds the rest in place.
    if files.write_json(places.plan, decided.model_dump(mode="json")):
        changed.append(places.plan.name)
    return tuple(changed)


def _secret(places: Places, name: str) -> str:
    path = places.secrets / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        value = secrets.token_urlsafe(32)
        files.write(path, value + "\n", 0o600)
        return value
