"""Two-sided, tiled, event-controlled sampling."""
