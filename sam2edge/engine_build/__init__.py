"""Builds a model's engines: exports its graphs, builds one engine in a process of its own each, compares them."""
