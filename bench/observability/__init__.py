"""The whole stack under load with a real Prometheus: does all that is told arrive, and make sense?"""
