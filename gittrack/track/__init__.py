"""Runs: what is recorded of them, and how they are found again."""
