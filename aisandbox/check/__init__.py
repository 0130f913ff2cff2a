"""Checks a root file system or a running host for what no marketplace accepts. Standard library only: it runs on hosts."""
