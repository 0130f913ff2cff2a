"""`aisandbox configure`: from the user's choice to a deployment and the services' environment files.

Runs at every boot and after every change. It is idempotent, and bad input never stops it: what cannot be done
is recorded as a problem, and the appliance comes up on a safe default.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
from dataclasses import dataclass

from aisandbox.auxiliary import prompt
from aisandbox.instance import files
from aisandbox.instance.choose import access, host_names, options
from aisandbox.instance.choose.options import Choice
from aisandbox.instance.choose.resolve import resolve
from aisandbox.instance.deployment import Deployment
from aisandbox.instance.fit import hardware
from aisandbox.instance.keep import volume
from aisandbox.instance.observe.notices import warnings
from aisandbox.instance.observe.report import Reporter
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from aisandbox.instance.run import container, rendering, services
from aisandbox.instance.run.rendering import Rendered
from aisandbox.manifest import Manifest

SECRETS = ("webui_secret_key", "admin_password", "sandbox_key", "api_key", "chat_password")
"""Generated once on every instance and kept in the data directory. The last two stand in for an invalid choice."""


@dataclass(frozen=True)
class Outcome:
    """What a run of `apply` came to."""

    deployment: Deployment
    changed: tuple[str, ...]
    """Names of the files that changed."""

    @property
    def rendered(self) -> tuple[Rendered, ...]:
        """The rendered files among them."""
        return tuple(entry for entry in rendering.RENDERED if entry.file in self.changed)


def apply(places: Places, manifest: Manifest) -> Outcome:
    """Read the choice, resolve it, and bring every rendered file up to date."""
    report = Reporter(places.status("configure"), quiet=True)
    given, found = options.read(places, manifest)
    unused = volume.problem(places, given.data_volume)
    decided = resolve(given, (*found, unused) if unused else found, manifest, hardware.find(places))
    changed = _write(places, manifest, given, decided)
    if all(problem.source != str(places.options) for problem in found):
        options.keep(places)
    if decided.problems:
        count = len(decided.problems)
        noun = "problem" if count == 1 else "problems"
        message = f"{count} {noun} with the configuration; planned {decided.model}. {decided.problems[0]}."
        report.failed("configure", message, decided.problems[0].fix)
    else:
        report.done("configure", f"Configured to serve {decided.model}.")
    return Outcome(decided, changed)


def apply_safely(places: Places, manifest: Manifest) -> Outcome:
    """`apply` for the boot: should it fail in an unforeseen way, go on as if nothing had been chosen."""
    try:
        return apply(places, manifest)
    except Exception as error:
        problem = Problem(
            reason=f"the choice could not be applied ({type(error).__name__}: {error}); the default is used",
            fix="See why: sudo aisandbox logs configure",
        )
        decided = resolve(Choice(), (problem,), manifest, hardware.find(places))
        decided.save(places.resolved)
        Reporter(places.status("configure"), quiet=True).failed("configure", str(problem), problem.fix)
        return Outcome(decided, (places.resolved.name,))


def services_to_restart(places: Places, outcome: Outcome) -> tuple[str, ...]:
    """Services that must start anew on what has changed; the model's also after a failure: its cause may be gone."""
    units = [unit for entry in outcome.rendered if entry.action == "restart" for unit in entry.units]
    reports = (files.read_json(places.status(service)) or {} for service in ("model", "engine"))
    failed = any(report.get("state") == "failed" for report in reports)
    if failed or {places.resolved.name, places.hf_token.name} & set(outcome.changed):
        units.insert(0, services.MODEL)
    return tuple(dict.fromkeys(units))


def services_to_reload(outcome: Outcome) -> tuple[str, ...]:
    """Services that take a changed configuration while they run."""
    return tuple(dict.fromkeys(unit for entry in outcome.rendered if entry.action == "reload" for unit in entry.units))


def bring_up(places: Places, outcome: Outcome, *, boot: bool = False) -> dict[str, tuple[str, ...]]:
    """Have the services run on what has changed, without waiting for them.

    Args:
        boot: only those that run already, on files of the boot before, are told: the others come later anyway.

    Returns:
        What is done, as a verb, and to which units.

    Raises:
        OSError, subprocess.SubprocessError: systemd refused or cannot be asked; never at boot, where others depend on
            this run.
    """
    done = {"Reloading": services_to_reload(outcome), "Restarting": services_to_restart(places, outcome)}
    if places.live:
        tell = (services.refresh, services.refresh) if boot else (services.reload, services.restart)
        try:
            for units, act in zip(done.values(), tell, strict=True):
                if units:
                    act(*units)
        except (OSError, subprocess.SubprocessError) as error:
            if not boot:
                raise
            print(f"Services could not be told of the changes: {error}", file=sys.stderr)
    return {verb: units for verb, units in done.items() if units}


def _write(places: Places, manifest: Manifest, given: Choice, decided: Deployment) -> tuple[str, ...]:
    """Write everything that follows from the deployment. Returns the names of the files that changed."""
    for folder in (places.secrets, places.hf_token.parent):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    token = given.hf_token.get_secret_value() if given.hf_token else ""
    texts = {places.hf_token: token}
    kept = secrets_of(places)
    context = {
        "manifest": manifest,
        "deployment": decided,
        "release": files.read_json(places.release) or {},
        "secrets": kept,
        "choice": given,
        "host_names": host_names.of(places, manifest, given),
        "api_key": access.api_key(given, kept),
        "chat_password": access.chat_password(given, kept),
        "rag_template": prompt.TEMPLATE,
        "data_volume": volume.kept(places, given.data_volume),
        "warnings": warnings(manifest, decided.access, places.container),
        "inside": container.Inside.of(places, manifest, kept) if places.container else None,
    }
    changed = [path.name for path, text in texts.items() if files.write(path, text, 0o600)]
    changed += [entry.file for entry in rendering.write(places, context)]
    # The deployment comes last: whoever sees it finds the rest in place.
    if decided.save(places.resolved):
        changed.append(places.resolved.name)
    return tuple(changed)


def secrets_of(places: Places) -> dict[str, str]:
    """The instance's own secrets by name; those that are missing are made."""
    return {name: _secret(places, name) for name in SECRETS}


def _secret(places: Places, name: str) -> str:
    path = places.secrets / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        value = secrets.token_urlsafe(32)
        files.write(path, value + "\n", 0o600)
        return value
