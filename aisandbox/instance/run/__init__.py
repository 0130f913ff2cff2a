"""How services run: systemd, the container, rendered files."""
