"""The embedded small language model: its weights, how it is made, and how it is judged."""
