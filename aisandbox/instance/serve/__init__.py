"""The engine: how it starts, what failed, what is tried next, what it accepts."""
