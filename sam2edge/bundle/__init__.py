"""One file that installs sam2edge on a machine without a network: see docs/offline.md."""
