"""The commands, one file each. Read a file from top to bottom."""
