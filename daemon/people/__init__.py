"""What a person asks and decides: requests, decisions, and why things are as they are."""
