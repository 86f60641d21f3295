"""Lists: markers of items, the extent of an item, and renumbering when items are removed."""
