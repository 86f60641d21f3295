"""Audit log: a record of what was done to each answer, and the only place where text is kept.

Off unless the operator turns it on. `writer` records in the background, `entry` is the format of a record, `store`
encrypts and keeps records for a limited time. Nothing here can change a response.
"""
