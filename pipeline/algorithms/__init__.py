"""Mathematics on arrays: no frame, no header, no file is known here."""
