"""The tables of the Albireo paper, predicted from one of its rows: ``python -m bench.paper``.

``data`` has the paper's figures. ``calibration`` fits the H100 to the row of Qwen2.5-32B at t = 4, ``runs``
simulates all others, ``comparison`` sets them against the paper, ``degrees`` finds the optimal TP degree by
them, ``contention`` says what memory would have to do for the rest. ``report``, ``document`` and ``chart``
show it.
"""
