"""Every option of every command, declared once; nothing here loads anything heavy. Start with spec.py."""
