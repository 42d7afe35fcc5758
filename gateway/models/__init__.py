"""The models that a gateway serves, and the cells in which they run."""
