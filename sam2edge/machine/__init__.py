"""Board, software, memory, power and heat of the machine, by the standard library; each file reads one subject."""
