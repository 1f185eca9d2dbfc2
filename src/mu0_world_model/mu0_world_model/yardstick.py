"""Own the unit of speed that carries over between machines.

A yardstick is one forward pass of a configuration's text layers on 192 tokens, and one of its
vision tower and connector on one image, both by plain transformers in float32.
"""

import torch
from transformers import LlamaModel
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector, SmolVLMVisionTransformer

from mu0_world_model.config import Mu0Config
from mu0_world_model.untrained import fill
from mu0_world_model.vlm import connector_config, llama_config, vision_config

TOKENS = 192


class Yardstick:
    """Hold the two models; calling it runs both."""

    def __init__(self, config: Mu0Config, device: str) -> None:
        sizes = config.vlm
        text = llama_config(
            width=sizes.text_width, mlp=sizes.text_mlp, sizes=sizes, layers=config.num_vlm_layers
        )
        vision = vision_config(sizes)
        self._text = LlamaModel(text)
        self._tower = SmolVLMVisionTransformer(vision)
        self._connector = SmolVLMConnector(connector_config(sizes, text, vision))
        for module in (self._text, self._tower, self._connector):
            fill(module)
            module.eval().to(device)
        generator = torch.Generator().manual_seed(0)
        self._tokens = torch.randint(sizes.vocab_size, (1, TOKENS), generator=generator).to(device)
        width, height = config.resize_imgs_with_padding
        self._image = torch.rand(1, 3, height, width, generator=generator).to(device) * 2.0 - 1.0

    @torch.inference_mode()
    def __call__(self) -> None:
        """Run both models once."""
        self._text(input_ids=self._tokens, use_cache=False)
        self._connector(self._tower(self._image).last_hidden_state)
        if self._tokens.is_cuda:
            torch.cuda.synchronize(self._tokens.device)
