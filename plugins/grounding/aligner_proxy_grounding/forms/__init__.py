"""Forms of facts, one module a topic; `reader.py` reads all of them."""
