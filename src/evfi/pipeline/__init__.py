"""From a recording to a finished video."""
