"""Takes secrets out of text that leaves the instance."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

from aisandbox.instance.environment_file import quoted

MASK = "********"
SHORTEST = 6
"""Shorter values would match everywhere; the options' rules allow no secret that short."""

# All repetitions that could start anywhere are limited: logs hold lines of any length and by anybody.
_TOKENS = re.compile(
    r"""
      \b(?:hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|[sp]k[-_]|dop_v1_)[A-Za-z0-9_-]{8,}  # prefixes of their makers
    | \b(?:AKIA|ASIA)[0-9A-Z]{16}
    | \beyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*  # JSON Web Tokens
    | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_AUTHORIZATION = re.compile(
    r"(?i)\b(bearer|(?:basic|token)(?=\S{0,9}\s{0,9}\S{0,32}\d))(\s+|\s*[:=]\s*[\"']?)[A-Za-z0-9._~+/=-]{8,}"
)
_IN_URL = re.compile(r"([a-z][a-z0-9+.-]{0,15}://)[^/\s@\"']+@")
_QUERY = re.compile(
    r"(?i)([?&][^=&\s]{0,32}(?:token|key|secret|password|signature|credential)[^=&\s]{0,64}=)[^&\s\"']+"
)
_ASSIGNED = re.compile(
    r"(?i)((?:secret|password|passwd|token(?!s|iz)|api_?key|private_?key|credential)[A-Za-z0-9_.-]{0,64}"
    r"[\"']?[ \t]*[=:][ \t]*)(?!(?:true|false|null|none)\b)"
    r"(\"(?:\\.|[^\"\\\n])*\"|'(?:''|[^'\n])*'|[^\s,;}\]]+)"
)
"""A setting whose name says that its value is secret."""
_LINE = re.compile(
    r"(?im)^([ \t+-]*[a-z0-9_.-]*(?:secret|password|passwd|token|api_?key|private_?key|credential)_?[ \t]*[=:][ \t]*)"
    r"(?!(?:true|false|null|none)[ \t]*$)\S.*$"
)
"""The same on a line of its own, where everything that follows belongs to the value."""


def text(content: str, secrets: Iterable[str] = ()) -> str:
    """The text without the given secrets (in any of their usual spellings) and without what looks like one."""
    spellings = {spelling for secret in secrets if len(secret) >= SHORTEST for spelling in _spellings(secret)}
    for spelling in sorted(spellings, key=len, reverse=True):
        content = content.replace(spelling, MASK)
    content = _TOKENS.sub(MASK, content)
    content = _AUTHORIZATION.sub(rf"\1\2{MASK}", content)
    content = _IN_URL.sub(rf"\1{MASK}@", content)
    content = _QUERY.sub(rf"\1{MASK}", content)
    content = _LINE.sub(rf"\1{MASK}", content)
    return _ASSIGNED.sub(rf"\1{MASK}", content)


def _spellings(secret: str) -> Iterable[str]:
    raw = secret.encode()
    # Without the last characters: they depend on what is encoded along with the secret.
    encoded = base64.b64encode(raw).decode().rstrip("=")[:-1]
    written = quote(secret, safe=""), json.dumps(secret)[1:-1], re.escape(secret), secret.replace(".", "[.]")
    return secret, secret.replace("'", "''"), quoted(secret)[1:-1], encoded, *written
