"""Proof: a matrix of runs labelled by how they ended, and how well rules, causes and fixes fit those labels."""
