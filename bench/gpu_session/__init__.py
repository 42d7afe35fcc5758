"""Everything that is measured on a GPU machine, as one command that needs no network.

    make gpu-session ARGS="--out DIR"

``parts.py`` lists what runs, each as a process of its own (``part.py``) with a time limit: the machine's
versions (``environment.py``), the tests that need a GPU (``gpu_tests.py``), the model alone (``model.py``),
and the commands ``albireo bench``. ``page.py`` writes what they found.
"""
