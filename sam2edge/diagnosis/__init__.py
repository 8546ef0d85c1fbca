"""Tries what works on this machine; `sam2edge doctor` shows it."""
