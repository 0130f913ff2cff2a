"""What tests have the sandbox run in more than one place."""

from __future__ import annotations

OWN_USERS = {
    "python": "print(next(line for line in open('/proc/self/status') if line[:4] == 'Uid:')[4:])",
    "javascript": "console.log(/^Uid:(.*)/m.exec(require('fs').readFileSync('/proc/self/status', 'utf8'))[1])",
}
"""Code that prints the four users of its process."""
