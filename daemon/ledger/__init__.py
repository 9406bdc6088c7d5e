"""The database: what has landed, what is planned and made, what was decided. All SQL is here."""
