"""What stands around the model: board, software, power, heat, cameras. Standard library; each file reads one thing."""
