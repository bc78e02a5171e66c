"""Small real trainings with sigmoid attention; each is described by a ``RunConfig``."""
