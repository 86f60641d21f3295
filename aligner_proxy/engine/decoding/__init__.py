"""The processing of one request: prompt, draft proposals, verification, and the spliced result."""
