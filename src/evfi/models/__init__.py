"""Networks, and the bundle that holds all parts of a model."""
