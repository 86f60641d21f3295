"""The endpoints, for every test of this folder."""

from __future__ import annotations

from tests.gateway.endpoints.application import api as api
