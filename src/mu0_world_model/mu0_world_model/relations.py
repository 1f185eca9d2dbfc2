"""Own what lets a keypoint see where others are: attention whose values are relative places.

Not part of the released model. A motion often ends at another keypoint (a gripper at an object);
with values that are differences of anchors, that place is read off linearly, wherever both are,
instead of being learned from examples of all places.
"""

from torch import Tensor, nn

_HEAD_DIM = 32
_HEADS = 6


class Relations(nn.Module):
    """Add to each keypoint's token what it sees of the others' places; begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, _HEADS * _HEAD_DIM, bias=False)
        self.key = nn.Linear(width, _HEADS * _HEAD_DIM, bias=False)
        self.output = nn.Linear(3 * _HEADS, width, bias=False)
        nn.init.zeros_(self.output.weight)

    def forward(self, tokens: Tensor, places: Tensor, valid: Tensor | None) -> Tensor:
        """Look around.

        Args:
            tokens: (B, g, n, E) normalised tokens; tokens of one of the g groups see each other.
            places: (B, n, 3) of the keypoints.
            valid: (B, n) bool keypoints that may be looked at, None = all.

        Returns:
            (B, g, n, E) to be added to the tokens.
        """
        q, k = (
            layer(tokens).unflatten(-1, (_HEADS, _HEAD_DIM)).transpose(2, 3)
            for layer in (self.query, self.key)
        )  # (B, g, heads, n, d)
        scores = q @ k.transpose(-1, -2) * _HEAD_DIM**-0.5
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None, None], float("-inf"))
        attention = scores.softmax(dim=-1)
        seen = attention @ places.to(attention.dtype)[:, None, None]  # (B, g, heads, n, 3)
        relative = seen - places.to(attention.dtype)[:, None, None]
        return self.output(relative.transpose(2, 3).flatten(-2))
