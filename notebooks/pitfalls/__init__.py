"""The pitfalls and traps of notebook 07 that need a file, and the settings of its linter."""
