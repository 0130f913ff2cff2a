"""Settings of hypothesis for the unit tests."""

from __future__ import annotations

from hypothesis import settings

# A first example imports what the others find there, and the machine may be busy: nothing fails for being slow.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
