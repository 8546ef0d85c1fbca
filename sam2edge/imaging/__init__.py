"""Photos, prompts and masks as arrays, before and after the model."""
