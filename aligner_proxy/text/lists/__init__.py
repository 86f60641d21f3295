"""Lists: the marks of their items, what belongs to an item, and numbers that stay right when items go."""
