"""Measures what the group commit brings: side by side with the plain design, on the machine it runs on."""
