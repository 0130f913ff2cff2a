"""The builder's further commands, by what they are for."""
