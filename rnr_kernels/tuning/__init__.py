"""Tuning of base models: instruction data, and what is trained on it."""
