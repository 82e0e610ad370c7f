"""Execute tasks: one scheduler, and transports to this process, to local processes and to a Ray cluster."""
