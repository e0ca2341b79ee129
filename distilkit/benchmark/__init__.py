"""What a model costs: time, memory and energy. Start with timing.py."""
