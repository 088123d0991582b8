"""The tuning lab: implicit instruction tuning, reproduced in miniature on the embedded model."""
