"""What a model costs: time and memory. Start with timing.py."""
