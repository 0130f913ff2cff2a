"""The one registry of probes. Each module registers its own; whoever wants some picks them by name."""
