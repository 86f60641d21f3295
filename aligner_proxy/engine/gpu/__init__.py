"""One forward pass from recorded kernels: what the engine runs on a GPU in place of the library's modules."""
