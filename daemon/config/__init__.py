"""The options: where they come from, what they may be, and which of them are wrong."""
