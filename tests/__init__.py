"""All tests. They test behaviour: a name is a sentence that holds, and a test fails when it does not.

``tests/<package>/<folder>/test_<module>.py`` tests the module alone, or as few modules as possible, and
a file that is named after no module tests its folder as a whole. In addition there are these kinds:

- ``integration``: all tiers as real processes, a real Redis, and clients; also what kills one of them.
- ``races``: one real tier between scripted ones, which act in an order that seldom happens by itself.
- ``robustness``: what clients, files, Redis or the machine may do wrong, and what a user then sees.
- ``worker_svc/cuda``: what needs a GPU, skipped where there is none.
- ``deploy``: the files of ``deploy`` against the code that they name.

A test waits for a condition and never for a time. Where a test shows that nothing happens, it waits for as
long as that would take, and says so.
"""
