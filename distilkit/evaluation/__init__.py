"""What a model is worth: predictions, metrics, comparisons. Start with scoring.py."""
