"""How fast an engine makes the frames of a window, in how much memory, and how close to the plain computation."""
