"""Adapters to the frameworks that run models; each imports its framework when it is imported."""
