"""The sandbox: shell, files, code, browser, desktop, Jupyter and VS Code behind one HTTP entry.

Runs alone: in the appliance, in a container, or on a bare host. It imports nothing else of this repository.
"""

__version__ = "0.1.0"
