"""The user's choice: read from every place it can be given, checked against the manifest's options.

A bad value never discards the good ones: it becomes a `Problem`, and the next place, or the default, decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from aisandbox.instance.choose.options import cloud_init, clouds, container, deployment, own_file
from aisandbox.instance.choose.options.choice import Choice, Decision, Unavailable, decide
from aisandbox.instance.choose.options.errors import InvalidOptionError
from aisandbox.instance.choose.options.rules import MASK, advice, check, nearest, problem, shown
from aisandbox.instance.choose.options.source import GUARDS, SECTION, Source, read_text
from aisandbox.instance.places import Places
from aisandbox.instance.problem import Problem
from aisandbox.manifest import Manifest

__all__ = [
    "MASK",
    "SECTION",
    "Choice",
    "Decision",
    "InvalidOptionError",
    "Source",
    "Unavailable",
    "advice",
    "check",
    "choose",
    "decide",
    "keep",
    "nearest",
    "problem",
    "read",
    "read_text",
    "shown",
    "sources",
    "unavailable",
]

keep = own_file.keep


def sources(places: Places, manifest: Manifest) -> list[Source]:
    """Every place that gives options, the most important first."""
    keys = manifest.options_by_key
    own = _told(str(places.options), own_file.read(places))
    if places.container:
        # Its environment can be corrected, and what clouds and kernel say is said to the host.
        return [*own, *_told(container.NAME, container.read(places))]
    given = [
        *_told("user-data", cloud_init.read(places, keys)),
        *_told("user-data", cloud_init.ignored_parts(places)),
        *_told("StackScript", deployment.stackscript(places, manifest)),
        *_told("metadata service", clouds.read(places, keys)),
        *_told("kernel command line", deployment.kernel(places)),
    ]
    # What cannot be read there cannot be corrected after the deployment; who has chosen in the file since has dealt
    # with it. What it meant to guard stays guarded all the same.
    if any(source.values for source in own):
        given = [replace(source, problems=()) for source in given]
    return [*own, *given]


def _told(name: str, reader: Iterable[Source]) -> list[Source]:
    """What the reader finds. Should it fail in an unforeseen way, the other sources count, and every door is shut."""
    found = []
    try:
        for source in reader:
            found.append(source)
    except Exception as error:
        reason = f"could not be read ({type(error).__name__}: {error})"
        fix = "Choose here instead: sudo aisandbox configure --set KEY=VALUE"
        found.append(Source(name, problems=(Problem(reason=reason, fix=fix, source=name),), lost=GUARDS))
    return found


def unavailable(places: Places) -> Mapping[str, Unavailable]:
    """Options that cannot be had on this instance."""
    return container.UNAVAILABLE if places.container else {}


def choose(
    given: Iterable[Source], manifest: Manifest, without: Mapping[str, Unavailable] | None = None
) -> tuple[Choice, tuple[Problem, ...]]:
    """The choice that the sources make together, and every problem found on the way."""
    decision = decide(given, manifest, without)
    return decision.choice, decision.problems


def read(places: Places, manifest: Manifest) -> tuple[Choice, tuple[Problem, ...]]:
    """The user's choice on this instance, and every problem found on the way."""
    return choose(sources(places, manifest), manifest, unavailable(places))
