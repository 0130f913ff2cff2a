"""Reads a root file system that is not trusted."""

from __future__ import annotations

from aisandbox.check.tree import LARGEST, LINKS, Tree

__all__ = ["LARGEST", "LINKS", "Tree"]
