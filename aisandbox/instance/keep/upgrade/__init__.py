"""Upgrades of a running instance to a signed release, and the way back.

Everything here needs nothing but Python's standard library and Debian's tools: a copy of it works on while the
environments of the release are exchanged, and puts things right after a power cut.
"""
