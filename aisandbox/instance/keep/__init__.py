"""What lasts: the data volume and upgrades."""
