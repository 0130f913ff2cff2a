"""The commands of `aisandbox`, by what they are for. Each imports its own modules when it runs."""
