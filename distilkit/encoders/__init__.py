"""Checkpoints and the layers in them. Start with checkpoint.py, then layers.py."""
