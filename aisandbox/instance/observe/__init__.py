"""What is going on: status, timeline, journal, doctor."""
