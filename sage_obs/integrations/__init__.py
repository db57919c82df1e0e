"""One module per library or framework: a name, the versions it knows, `install` and `uninstall`."""
