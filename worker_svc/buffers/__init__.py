"""Arrays and tensors of a step: their types, structs of them, and the buffers that they lie in."""
