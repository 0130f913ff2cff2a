"""Runs the test suites side by side and reports what each of them costs: `python -m tests.runner [SUITE ...]`."""
