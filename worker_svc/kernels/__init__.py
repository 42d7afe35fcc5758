"""What a layer does: norms, gates, rotation; in the native ones attention and products too."""
