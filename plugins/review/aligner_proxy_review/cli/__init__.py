"""Commands about recorded answers and what people say of them: review, export, compare, audit."""
