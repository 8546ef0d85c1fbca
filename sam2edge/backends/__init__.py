"""What can run the graphs: one file a framework, chosen by the registry."""
