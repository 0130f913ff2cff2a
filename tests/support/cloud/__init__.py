"""Pretended clouds for tests: their APIs are doubles, the machines behind them are real.

`hypervisor.py` boots, snapshots and destroys machines; each cloud's module speaks that cloud's API in front of it.
"""
