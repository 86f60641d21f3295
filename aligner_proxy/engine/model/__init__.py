"""The model on its device: forward passes, attention, detector head, adapters and kernels."""
