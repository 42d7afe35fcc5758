"""What operators look at a stack with: top, trace and doctor. Doctor alone imports tiers."""
