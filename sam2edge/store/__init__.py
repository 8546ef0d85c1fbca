"""Models on disk: where they lie, how they get there, whether they are whole."""
