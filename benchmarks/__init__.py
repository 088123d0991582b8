"""How fast the ops are, beside the strongest peers we know: `make bench`."""
