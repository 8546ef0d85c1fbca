"""What a running model reports about itself."""
