"""Roles and rules: requirements of system prompts, data that teaches them, and the pass rate."""
