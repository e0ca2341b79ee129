"""A student beside its teacher: losses and objectives. Start with text_objective.py."""
