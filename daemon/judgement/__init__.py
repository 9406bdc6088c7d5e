"""What a night astronomer would say: verdicts, what is missing, what is enough; pure functions of rows."""
