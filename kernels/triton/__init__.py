"""The triton backend: kernels for CUDA capability 8.0 and newer, and the statistics of all fused backends."""
