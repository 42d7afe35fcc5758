"""Telemetry of a whole stack: does all of it arrive, and what does it cost?"""
