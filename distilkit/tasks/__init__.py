"""Labelled data: the supported tasks, their rows and labels. Start with catalogue.py."""
