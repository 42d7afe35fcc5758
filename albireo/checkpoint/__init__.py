"""A checkpoint as more than one tier reads it: its small files, and whether two tiers read the same ones."""
