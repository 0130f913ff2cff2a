from aisandbox.build.cli import main

main()
