"""Turns what Playwright and DevTools say into errors of the registry, in a sentence."""

from __future__ import annotations

import re

from sandbox_api.errors import SandboxError
from sandbox_api.unicode import ANSI

LONGEST = 400
PREFIX = re.compile(r"^(?:[A-Z]\w*\.\w+: |Error: |Protocol error \([\w.]+\): )+")
NETWORK = re.compile(r"net::(ERR_\w+)")
# Playwright's log of what it tried names the reason; the last one counts.
REASONS = re.compile(
    r"<[^\n]{0,200} intercepts pointer events"
    r"|element is (?:not visible|not enabled|not editable|not stable|outside of the viewport)"
    r"|did not find some options"
)
CLOSED = ("has been closed", "Target closed", "Connection closed", "Session closed", "Browser closed", "was detached")
CRASHED = ("Page crashed", "Target crashed")
INVALID = (
    "while parsing",
    "not a valid selector",
    "not a valid XPath",
    "Unknown engine",
    "Unexpected token",
    "Unknown key",
    "Malformed",
    "Invalid glob",
    "Invalid header",
    ": expected ",
    "Element is not a",
    "Node is not a",
    "Input of type",
    "Cannot type text into",
    "Non-multiple file input",
    "Clicking the checkbox did not change",
    "Cookie should have",
    "Invalid cookie",
    "Invalid url",
    "Invalid URL",
    "invalid URL",
)


def clean(error: BaseException | str) -> str:
    """The message without colours, call log and the names of the library's functions."""
    text = ANSI.sub("", str(error)).split("Call log:")[0].strip()
    text = " ".join(line.strip() for line in PREFIX.sub("", text).splitlines() if line.strip())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def translate(error: Exception, what: str, *, connected: bool = True) -> SandboxError:
    """The error that the caller sees.

    Args:
        what: what was being done, such as `click #go`.
        connected: whether the browser is still there; else a closed page means that the browser went away.
    """
    log, message = ANSI.sub("", str(error)), clean(error)
    if not connected:
        return SandboxError("browser_unavailable", f"{what}: the connection to the browser was lost")
    if any(words in log for words in CRASHED):
        return SandboxError("browser_failed", f"{what}: the page has crashed", hint="Navigate to open a page again.")
    if any(words in log for words in CLOSED):
        return SandboxError("tab_not_found", f"{what}: the tab was closed meanwhile")
    # The second is what DevTools say when the script that was ended held a top-level statement.
    if "Execution was terminated" in log or "(Runtime.evaluate): Internal error" in log:
        return SandboxError("browser_timeout", f"{what}: the page's code ran too long and was ended")
    if network := NETWORK.search(log):
        words = network.group(1).removeprefix("ERR_").replace("_", " ").lower()
        return SandboxError("navigation_failed", f"{what}: {words} ({network.group(1)})")
    if "interrupted by another navigation" in log:
        return SandboxError("navigation_failed", f"{what}: {message}")
    if any(words in log for words in INVALID):
        return SandboxError("invalid_request", f"{what}: {message}")
    if "Timeout" in log and "exceeded" in log:
        return _timeout(log, what)
    return SandboxError("browser_failed", f"{what}: {message}")


def _timeout(log: str, what: str) -> SandboxError:
    if reasons := REASONS.findall(log):
        return SandboxError("browser_timeout", f"{what}: the element is there, but {reasons[-1]}")
    if "waiting for locator" in log and "resolved to" not in log:
        return SandboxError("element_not_found", f"{what}: there is no such element")
    return too_slow(what)


def too_slow(what: str) -> SandboxError:
    return SandboxError("browser_timeout", f"{what}: not done within the timeout")
