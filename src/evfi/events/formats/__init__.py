"""One file per event format."""
