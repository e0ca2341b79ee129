"""The one training loop and what it needs. Start with loop.py."""
