"""The service: a web page and an HTTP API over a folder of runs or a team's store."""
