"""The eager backend: plain PyTorch on any device, and the specification that the other backends are tested against."""
