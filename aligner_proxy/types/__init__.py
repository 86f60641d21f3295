"""Frozen data types shared by all packages, independent of LiteLLM, HTTP and torch.

Everything public of these modules is imported from here.
"""

from aligner_proxy.types.costs import *
from aligner_proxy.types.exchange import *
from aligner_proxy.types.outcome import *
from aligner_proxy.types.policy import *
from aligner_proxy.types.requirement import *
from aligner_proxy.types.scores import *
from aligner_proxy.types.settings import *
