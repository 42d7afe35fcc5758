"""From a plan to the tensors of a step: the slot table, and staging, which copies its rows to the device."""
