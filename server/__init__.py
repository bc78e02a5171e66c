"""The service: a web page and an HTTP API over a folder of runs, read-only."""
