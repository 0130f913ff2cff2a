"""Tells why a bake on a platform failed: in the words of the task or of the platform, with what can be done."""

from __future__ import annotations

import re
from pathlib import Path

from aisandbox.builder import ansible_output
from aisandbox.builder.errors import BuildError
from aisandbox.manifest import Target

REASON = re.compile(r"^--> [^:]+: (?P<reason>.+)", re.MULTILINE)
"""Packer's summary at the end of its output."""
REFUSED = re.compile(
    r"\b401\b|\b403\b|authenticate|unauthorized|AuthFailure|InvalidClientTokenId|SignatureDoesNotMatch|invalid_grant",
    re.IGNORECASE,
)
CHECK = re.compile(r"^\s*\S+\.image: error +(?P<check>\S+) +\S", re.MULTILINE)
"""A check that failed, in the report of the image check that ends a bake."""
SHOWN = 600


def explain(target: Target, log: Path, error: BuildError) -> BuildError:
    """What to tell of a bake that ended in `error`, from its log."""
    text = log.read_text(errors="replace") if log.exists() else ""
    if failed := ansible_output.failure(text.splitlines()):
        return BuildError(failed, f"less {log}")
    if checks := [found["check"] for found in CHECK.finditer(text)]:
        return BuildError(f"the image does not pass the check: {', '.join(checks)}", f"less {log}")
    reasons = list(dict.fromkeys(found["reason"].strip() for found in REASON.finditer(text)))
    if not reasons:
        return error
    reason = "; ".join(reasons)[:SHOWN]
    if target.credentials and REFUSED.search(reason):
        names = " and ".join(target.credentials)
        return BuildError(
            f"{target.title} refuses the credentials in {names}: {reason}",
            f"get them at {target.credentials_url}, with the permission to make machines and images",
        )
    return BuildError(f"{target.title}: {reason}", f"less {log}")
