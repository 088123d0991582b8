"""Data that teaches roles and rules, made from existing instructions: see `build.build_dataset`."""
