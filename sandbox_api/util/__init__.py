"""Helpers around documents."""
