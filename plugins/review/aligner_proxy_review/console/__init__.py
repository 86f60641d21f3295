"""The console: corrections in a browser, for the operator and for reviewers of single teams.

`application` is where to begin reading. It reads the audit store, the policies and the keys; it writes reviews, and
examples, heads and policies when told to (`changing`). It knows nothing of LiteLLM: what it asks of the gateway it
asks by HTTP.
"""
