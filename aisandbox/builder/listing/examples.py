"""A value for every option, as files for people show it."""

from __future__ import annotations

import json
import re

from aisandbox.builder.errors import BuildError
from aisandbox.manifest import Option

SECRETS = ("CHANGE-ME-0123456789", "hf_CHANGEME0123456789")
"""Stand-ins for secrets; the first that obeys an option's pattern is shown."""


def example(option: Option) -> str:
    """A value that obeys the option's rules, as YAML.

    Raises:
        BuildError: the manifest gives none for it.
    """
    shown = option.example
    if option.type == "secret":
        shown = next((secret for secret in SECRETS if re.search(option.pattern or "", secret)), None)
    elif shown is None:
        shown = option.choices[0] if option.choices else option.default
    if shown is None:
        raise BuildError(f"option {option.key} has no example", "give it one in marketplace.yaml")
    return str(shown) if isinstance(shown, int) else json.dumps(shown)
