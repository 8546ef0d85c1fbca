"""What a video session remembers of each object."""
