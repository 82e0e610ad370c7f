"""Events: streams, stacks, file formats, simulation."""
