"""The console: shows corrections in a browser to the operator and to reviewers of single teams.

Read `application` first. The console reads the audit store, the policies and the keys. It writes reviews, and on
request also examples, heads and policies (`changing`). It does not use LiteLLM and talks to the gateway by HTTP.
"""
