"""A federation of processes on one machine: credentials, processes, a demonstration."""
