"""Does a segment go against an objective? The detector head on the aligner's last hidden state.

Input is the hidden state after the final norm at the last token of a segment of the answer *in the prompt*, where the
model has read objectives, query and segment; output is the log-odds (nats) that an objective asks for a change there.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class DetectorHead(nn.Module):
    """Two small layers: [segments, hidden_size] -> [segments] log-odds."""

    def __init__(self, hidden_size: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(hidden_size, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Score segment ends; computed in fp32 whatever the model's dtype is."""
        scores: Tensor = self.layers(hidden.float()).squeeze(-1)
        return scores

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, str(path))

    @classmethod
    def load(cls, path: Path) -> DetectorHead:
        """Read a saved head; its sizes are those of the stored tensors."""
        state = load_file(str(path))
        width, hidden_size = state["layers.0.weight"].shape
        head = cls(hidden_size, width)
        head.load_state_dict(state)
        return head.eval()


def segment_end_tokens(offsets: list[tuple[int, int]], ends: list[int]) -> list[int]:
    """Index of the token in which each character offset `ends[i] - 1` lies; both lists ascend.

    `offsets` are (start, end) characters of the prompt's tokens, `ends` exclusive ends of segments in the prompt.
    """
    found, token = [], 0
    for end in ends:
        while token < len(offsets) - 1 and offsets[token][1] < end:
            token += 1
        found.append(token)
    return found
