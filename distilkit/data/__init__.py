"""From text to batches of token ids. Start with corpus.py, then blocks.py."""
