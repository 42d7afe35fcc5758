"""Tools for operators: top, trace and doctor, behind commands of these names. Only doctor imports tiers."""
