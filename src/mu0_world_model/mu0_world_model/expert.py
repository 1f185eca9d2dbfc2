"""Own the trace expert: a Llama-type stack over the suffix, modulated by flow time.

Tokens of a keypoint are its history groups and its control point groups. The expert keeps all of
them in one sequence, group after group: [history group 0 of all keypoints, group 1, ..., then for
each sample its control groups]. In this order the rule that a history token sees the same or
earlier history groups, and a control token everything of its own sample, needs no mask: each
block of queries attends to a leading part of the keys. History tokens never see control points,
so all samples share them.

All suffix tokens have the same position, so only its distance to the prefix matters: the prefix's
keys are rotated back by it once, and no suffix token is rotated at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaRMSNorm,
)

from mu0_world_model.attention import (
    attend,
    join_masks,
    merge_heads,
    rms_norm,
    rotate,
    rotation,
    split_heads,
)
from mu0_world_model.config import Mu0Config
from mu0_world_model.relations import Relations
from mu0_world_model.vlm import PrefixPass, llama_config


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """Hold what the expert reads of a prefix of L tokens; constant over flow steps and queries.

    Attributes:
        keys: Per expert layer (B, kv_heads, L, head_dim). Joint layers have the VLM's, seen from
            the suffix, cross layers the expert's projection of them.
        values: Likewise, nowhere rotated.
        valid: (B, L) bool, None = all.
    """

    keys: list[Tensor]
    values: list[Tensor]
    valid: Tensor | None

    def repeated(self, times: int) -> "Memory":
        """Return this memory for a batch in which every sample stands `times` times in a row."""

        def spread(x: Tensor) -> Tensor:
            return x.repeat_interleave(times, dim=0)

        return Memory(
            keys=[spread(k) for k in self.keys],
            values=[spread(v) for v in self.values],
            valid=None if self.valid is None else spread(self.valid),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SuffixLayout:
    """Describe the order of suffix tokens and which of them count as keys.

    Attributes:
        n_keypoints: Keypoints n.
        history_groups: History groups in the sequence; 0 where history is hidden.
        samples: Samples s that share prefix and history.
        history_valid: (B, history_groups * n) bool, None = all.
        control_valid: (B, control_groups * n) bool, None = all.
        places: (B, n, 3) anchors of the keypoints.
        keypoint_valid: (B, n) bool, None = all.
    """

    n_keypoints: int
    history_groups: int
    samples: int
    history_valid: Tensor | None
    control_valid: Tensor | None
    places: Tensor
    keypoint_valid: Tensor | None

    @property
    def history_tokens(self) -> int:
        """Number of history tokens."""
        return self.n_keypoints * self.history_groups


class Expert(nn.Module):
    """Refine suffix tokens with the prefix, layer by layer."""

    def __init__(self, config: Mu0Config) -> None:
        super().__init__()
        sizes = config.vlm
        self.head_dim = sizes.text_head_dim
        self.stride = config.layer_stride
        self.joint = [config.is_joint(i) for i in range(config.expert_layers)]
        self.last_joint = max((i for i, joint in enumerate(self.joint) if joint), default=-1)
        llama = llama_config(
            width=config.expert_width,
            mlp=config.expert_mlp,
            sizes=sizes,
            layers=config.expert_layers,
        )
        layers = (LlamaDecoderLayer(llama, i) for i in range(config.expert_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = LlamaRMSNorm(config.expert_width, eps=sizes.rms_norm_eps)
        for layer, joint in zip(self.blocks, self.joint, strict=True):
            if not joint:  # keys and values come from the VLM's, not from the suffix
                layer.self_attn.k_proj = nn.Linear(sizes.kv_width, sizes.kv_width, bias=False)
                layer.self_attn.v_proj = nn.Linear(sizes.kv_width, sizes.kv_width, bias=False)
        self.relations: nn.ModuleList | None = None
        if config.use_appearance:
            self.relations = nn.ModuleList(Relations(config.expert_width) for _ in self.layers)
        self.gradient_checkpointing = False
        self.compiled_layer: Callable[..., Tensor] | None = None

    @property
    def vlm_layers(self) -> int:
        """Number of VLM layers whose keys and values are read."""
        return (len(self.layers) - 1) * self.stride + 1

    @property
    def blocks(self) -> list[LlamaDecoderLayer]:
        """The layers with their type."""
        return cast(list[LlamaDecoderLayer], list(self.layers))

    def remember(self, prefix: PrefixPass, valid: Tensor) -> Memory:
        """Prepare a prefix (valid: (B, L) bool) for any number of forward passes."""
        keys, values = [], []
        back = rotation(-valid.sum(1, keepdim=True), self.head_dim)
        for i, (layer, joint) in enumerate(zip(self.blocks, self.joint, strict=True)):
            k, v = prefix.keys[i * self.stride], prefix.values[i * self.stride]
            if joint:
                k = rotate(k, back)
            else:
                k = self._projected(layer.self_attn.k_proj, k)
                v = self._projected(layer.self_attn.v_proj, v)
            keys.append(k)
            values.append(v)
        return Memory(keys, values, None if bool(valid.all()) else valid)

    def forward(
        self, x: Tensor, modulation: Tensor, memory: Memory, layout: SuffixLayout
    ) -> Tensor:
        """Run all layers.

        Args:
            x: (B, T, E) suffix tokens in the order of the layout.
            modulation: (B or 1, layers, 6, E): shift, scale, gate of attention, then of MLP.
            memory: The prefix.
            layout: The order of the tokens.

        Returns:
            (B, s * control tokens, E) control tokens before the final norm.
        """
        for i, layer in enumerate(self.blocks):
            if i == self.last_joint + 1:  # from here on nothing reads history tokens
                x, layout = x[:, layout.history_tokens :], _without_history(layout)
            relations = None if self.relations is None else self.relations[i]
            args = (layer, relations, self.joint[i], x, modulation[:, i, :, None].to(x.dtype))
            seen = (memory.keys[i], memory.values[i], memory.valid)
            run = self.compiled_layer or self._layer
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(run, *args, *seen, layout, use_reentrant=False)
            else:
                x = run(*args, *seen, layout)
        return x[:, layout.history_tokens :]

    def compile_layers(self) -> None:
        """Compile what runs a layer; it is the same for all joint, and for all cross layers."""
        self.compiled_layer = torch.compile(self._layer)

    def _layer(
        self,
        layer: LlamaDecoderLayer,
        relations: nn.Module | None,
        joint: bool,
        x: Tensor,
        modulation: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor | None,
        layout: SuffixLayout,
    ) -> Tensor:
        """Run one layer; modulation is (B or 1, 6, 1, E), keys to valid are of the prefix."""
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unbind(1)
        a = rms_norm(layer.input_layernorm, x) * (1 + scale1) + shift1
        attention = layer.self_attn
        if joint:
            seen = self._joint_attention(attention, a, keys, values, valid, layout)
        else:  # all queries have position 0 here, whatever the prefix's keys have
            q = split_heads(attention.q_proj(a), self.head_dim)
            seen = merge_heads(attend(q, keys, values, valid))
        x = x + gate1 * attention.o_proj(seen)
        if relations is not None:
            x = x + self._related(relations, a, layout)
        b = rms_norm(layer.post_attention_layernorm, x) * (1 + scale2) + shift2
        return x + gate2 * layer.mlp(b)

    def _joint_attention(
        self,
        attention: LlamaAttention,
        a: Tensor,
        keys: Tensor,
        values: Tensor,
        valid: Tensor | None,
        layout: SuffixLayout,
    ) -> Tensor:
        """Attend to the prefix and to the suffix tokens that the layout allows."""
        q, k, v = (
            split_heads(projection(a), self.head_dim)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        n_prefix, n_history, batch = keys.shape[2], layout.history_tokens, a.shape[0]
        if n_history:
            keys = torch.cat([keys, k[:, :, :n_history]], dim=2)
            values = torch.cat([values, v[:, :, :n_history]], dim=2)
            valid = join_masks(
                [(valid, n_prefix), (layout.history_valid, n_history)], batch, a.device
            )
        outputs = []
        for group in range(layout.history_groups):
            rows = slice(group * layout.n_keypoints, (group + 1) * layout.n_keypoints)
            seen = n_prefix + rows.stop
            group_valid = None if valid is None else valid[:, :seen]
            group_q = q[:, :, rows]
            outputs.append(attend(group_q, keys[:, :, :seen], values[:, :, :seen], group_valid))

        samples = layout.samples
        q, k, v = (_split_samples(t[:, :, n_history:], samples) for t in (q, k, v))
        keys, values = (
            torch.cat([shared[:, None].expand(-1, samples, -1, -1, -1), own], dim=3).flatten(0, 1)
            for shared, own in ((keys, k), (values, v))
        )
        n_seen, n_own = n_prefix + n_history, k.shape[3]
        valid = join_masks([(valid, n_seen), (layout.control_valid, n_own)], batch, a.device)
        if valid is not None:
            valid = valid.repeat_interleave(samples, dim=0)
        outputs.append(_join_samples(attend(q.flatten(0, 1), keys, values, valid), samples))
        return merge_heads(torch.cat(outputs, dim=2))

    def _related(self, relations: nn.Module, a: Tensor, layout: SuffixLayout) -> Tensor:
        """Let control tokens of a group see where the other keypoints are."""
        n_history = layout.history_tokens
        groups = a[:, n_history:].unflatten(1, (-1, layout.n_keypoints))
        seen = relations(groups, layout.places, layout.keypoint_valid).flatten(1, 2)
        return torch.cat([seen.new_zeros(a[:, :n_history].shape), seen], dim=1)

    def _projected(self, projection: nn.Linear, heads: Tensor) -> Tensor:
        """Apply a projection of all key heads together to (B, kv_heads, L, head_dim)."""
        flat = merge_heads(heads).to(projection.weight.dtype)
        return split_heads(projection(flat), self.head_dim).to(heads.dtype)


def _without_history(layout: SuffixLayout) -> SuffixLayout:
    return replace(layout, history_groups=0, history_valid=None)


def _split_samples(x: Tensor, samples: int) -> Tensor:
    """Turn (B, heads, s * t, d) into (B, s, heads, t, d)."""
    return x.unflatten(2, (samples, -1)).transpose(1, 2)


def _join_samples(x: Tensor, samples: int) -> Tensor:
    """Turn (B * s, heads, t, d) into (B, heads, s * t, d)."""
    return x.unflatten(0, (-1, samples)).transpose(1, 2).flatten(2, 3)
