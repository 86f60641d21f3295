"""How is Meal's Preference-Weight-Net made? `python -m models.meal CONFIG.yaml`; the way of it is in docs/meal.md."""
