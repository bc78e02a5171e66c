"""Runs as files and in words: the report of one, the comparison of several, and their numbers for other programs."""
