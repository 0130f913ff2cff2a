"""Commands, their sessions, and terminals."""
