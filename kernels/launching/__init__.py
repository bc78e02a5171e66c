"""Launching of kernels, shared by the triton and hopper backends: TMA descriptors, launchers, completion counters."""
