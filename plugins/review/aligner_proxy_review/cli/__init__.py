"""Commands about recorded answers and their reviews, one module for each command."""
