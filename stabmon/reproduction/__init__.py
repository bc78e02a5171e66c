"""The paper's claims in miniature: a grid of small trainings, and a verdict on each claim from their losses alone."""
