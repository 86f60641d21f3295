"""What is done with one request: prompt, draft proposals, verification, and the spliced result."""
