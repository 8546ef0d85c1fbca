"""Which model fits the memory of this machine."""
