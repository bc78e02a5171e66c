"""Training frameworks that stabmon joins by one line: each in its own module, which imports its framework."""
