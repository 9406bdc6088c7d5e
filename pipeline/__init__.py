"""NIRI reduction toolkit."""
