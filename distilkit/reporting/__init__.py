"""What the records of many runs come to: tables, plots, pages. Start with models.py."""
