"""What makes sampling fit and fast: execution of the networks, batching, memory."""
