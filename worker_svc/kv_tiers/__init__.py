"""The KV tiers of one rank: where KV blocks are kept outside of the device, in host memory and on a disk."""
