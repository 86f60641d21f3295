"""Meal: a net that weighs objectives by prompt, its training and its rejection sampling (docs/guides/meal.md)."""
