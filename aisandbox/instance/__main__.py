"""`python -m aisandbox.instance`, which is `aisandbox` on the appliance."""

from aisandbox.instance.cli import main

main()
