"""The worker tier: one rank of a tensor-parallel group that runs plans."""
