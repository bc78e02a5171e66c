"""Families of models written without stabmon's modules, trained on data that its own workloads do not have."""
