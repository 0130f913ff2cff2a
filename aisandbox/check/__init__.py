"""Checks a root file system or a running host for what no marketplace accepts.

Standard library only: it is sent to hosts, and runs there with whatever Python they have.
"""
