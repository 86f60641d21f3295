"""Commands about recorded answers and what people say of them, one module a command."""
