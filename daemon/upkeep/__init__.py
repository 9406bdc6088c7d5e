"""What keeps the archive true for years: audit, backup, rebuild, retention, health, calendar."""
