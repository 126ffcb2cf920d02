"""The `protloc` command: thin modules that parse, call and print."""
