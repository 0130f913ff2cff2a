"""What this machine can serve: hardware, the list of models, sizing."""
