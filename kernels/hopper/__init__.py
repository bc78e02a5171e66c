"""The hopper backend: kernels in Gluon for CUDA capability 9.0, warp-specialised and fed by TMA."""
