"""The training loop of every command, and its parts: logging, resuming, stopping, devices. Start with loop.py."""
