"""The choice of the TP degree: how many groups of which degree serve a workload best on given devices."""
