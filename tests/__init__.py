"""All tests. A name is a sentence that holds, and the test fails when it does not.

``tests/<package>/<folder>/test_<module>.py`` tests that module; a file that is named after no module tests
its folder as a whole (``tests/test_structure.py`` checks where files lie). The other kinds:

- ``integration``: all tiers as real processes, a real Redis, and clients; what follows when one is killed.
- ``races``: one real tier and scripted others, which act in an order that seldom occurs by itself.
- ``robustness``: what clients, files, Redis or the machine can do wrong, and what a user then sees.
- ``worker_svc/cuda``: code for GPUs, on a card (mark ``gpu``) and on the simulated device; the mark of a test
  that needs a card says why.
- ``worker_svc/simulated_cuda``: the order of CUDA streams, on a simulated device, under seeds.
- ``deploy``, ``examples``: those folders' files against the code that they name or call.

``make test`` runs tests in several processes side by side (``conftest.py``). All tests of a file run in one
process, and so do all that use the same stack (``tp2``). So a test may use only what is its own process's:
the Redis of the fixture ``redis_url``, ports of ``free_port``, directories below ``tmp_path``. A limit on
time must leave room for a machine whose cores are all busy, or count CPU time.

A test waits for a condition and not for a time. Only a test of what does not happen waits for a time: as long
as it would take to happen.
"""
