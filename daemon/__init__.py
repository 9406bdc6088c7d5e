"""The automation: watches a night come in, plans what can be made, makes it, keeps it true."""
