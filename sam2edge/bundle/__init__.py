"""One file that brings sam2edge to a machine with no network: see docs/offline.md."""
