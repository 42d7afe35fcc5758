"""Dashboards, generated from the catalogue of metrics, and alert rules."""
