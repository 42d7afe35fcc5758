"""Whether streams survive the deaths of worker groups: behind ``albireo bench groups``."""
