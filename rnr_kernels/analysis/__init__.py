"""Analyses of what tuning changes in a base model and what the base model has already."""
