"""A simulated CUDA device, for tests of stream order on machines without a GPU.

Tensors on ``cuda:0`` lie in CPU memory, and what is launched on them waits in the queue of its stream until
something waits for it, or a random draw lets it run. So a missing event, a buffer that is used again too
early or memory that is freed under a copy brings wrong numbers here under some seeds, where a real device
would show it once in a million steps.

``policy``: which work runs when. ``device``: streams, events and what waits. ``memory``: allocations, and
what becomes of freed ones. ``tensor``, ``operators``, ``copies``, ``attention``: torch's operators.
``graphs``: CUDA graphs. ``kernels``: attention with ragged block tables. ``collectives``: NCCL, of ranks that
are processes with a device each (``ranks``). ``installed``: puts it all in the place of ``torch.cuda`` for
the length of a test.

It simulates order, not speed. In the place of Triton's kernels torch's operations run. Not simulated:
several devices in a process, streams that fork in a capture.
"""
