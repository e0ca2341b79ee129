"""Labelled data: which tasks there are, their rows and labels. Start with catalogue.py."""
