"""Models on disk: paths, download, import, checks."""
