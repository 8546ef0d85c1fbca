"""What works on this machine and what does not, found out by trying; `sam2edge doctor` shows it."""
