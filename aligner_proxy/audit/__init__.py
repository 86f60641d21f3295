"""Audit log: a record of each answer and its correction, and the only place where text is stored.

It is off unless the operator turns it on. `writer` records in the background, `entry` is the format of a record, and
`store` encrypts records and stores them for a limited time. Nothing here can change a response.
"""
