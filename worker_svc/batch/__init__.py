"""From a plan to the tensors of a step: the slot table, and its rows on the device."""
