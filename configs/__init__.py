"""The documented runs, one YAML file each, and the pinned versions they were tested with."""
