"""How long a step takes and how much memory a rank has, by a model of the hardware."""
