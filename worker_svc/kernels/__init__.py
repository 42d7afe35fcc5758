"""What lies between the matrix products of a layer: norms, gates, rotation, attention of decoding rows."""
