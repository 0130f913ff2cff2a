"""Checks a root file system or a running host for what no marketplace accepts.

Standard library only: it is sent to hosts, and runs there with whatever Python they have.
"""

from __future__ import annotations

# isort: off
# Each module puts its checks into the table, in this order.
from aisandbox.check import accounts, keys, traces, files, system, platforms, engine, running  # noqa: F401

# isort: on
from aisandbox.check.model import CHECKS, Check, Finding, Settings, Stage, Waiver
from aisandbox.check.report import Report, Result, print_report, run, shown

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Report",
    "Result",
    "Settings",
    "Stage",
    "Waiver",
    "print_report",
    "run",
    "shown",
]
