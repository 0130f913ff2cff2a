from aisandbox.builder.cli import main

main()
