"""The loop of roles and rules, closed in the embedded model's world."""
