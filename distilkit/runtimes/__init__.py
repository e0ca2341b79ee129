"""Other runtimes: export a checkpoint, prove the export, open and call it. Start with exporting.py."""
