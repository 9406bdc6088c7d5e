"""A night that is played: simulated or from an archive."""
