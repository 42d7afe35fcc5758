"""Tests of the kernels of a layer."""
