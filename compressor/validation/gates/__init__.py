"""Gates: what a report is held against."""
