"""The user's choice: read from every place it can be given, checked against the manifest's options.

A bad value never discards the good ones: it becomes a `Problem`, and the next place, or the default, decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aisandbox.instance.notices import Problem
from aisandbox.instance.options import cloud_init, clouds, deployment, own_file
from aisandbox.instance.options.choice import Choice, Decision, decide
from aisandbox.instance.options.rules import MASK, InvalidOptionError, advice, check, nearest, problem, shown
from aisandbox.instance.options.source import SECTION, Source, read_text
from aisandbox.instance.places import Places
from aisandbox.manifest import Manifest

__all__ = [
    "MASK",
    "SECTION",
    "Choice",
    "Decision",
    "InvalidOptionError",
    "Source",
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
]

keep = own_file.keep


def sources(places: Places, manifest: Manifest) -> list[Source]:
    """Every place that gives options, the most important first."""
    own = list(own_file.read(places))
    given = [
        *cloud_init.read(places, manifest.options_by_key),
        *cloud_init.ignored_parts(places),
        *deployment.stackscript(places, manifest),
        *clouds.read(places, manifest.options_by_key),
        *deployment.kernel(places),
    ]
    # What cannot be read there cannot be corrected after the deployment; who has chosen in the file since has dealt
    # with it.
    if any(source.values for source in own):
        given = [replace(source, problems=()) for source in given]
    return [*own, *given]


def choose(given: Iterable[Source], manifest: Manifest) -> tuple[Choice, tuple[Problem, ...]]:
    """The choice that the sources make together, and every problem found on the way."""
    decision = decide(given, manifest)
    return decision.choice, decision.problems


def read(places: Places, manifest: Manifest) -> tuple[Choice, tuple[Problem, ...]]:
    """The user's choice on this instance, and every problem found on the way."""
    return choose(sources(places, manifest), manifest)
