"""Networks of transformers with a few thousand random weights, loaded as large ones are."""

import numpy as np
import pytest

from mu0_perception.extract.captions import CaptionConfig, CaptionError
from mu0_perception.extract.learned import DepthNetwork, FeatureNetwork, is_cached
from mu0_perception.extract.vision_writers import ModelWriter

_SMALL = {"hidden_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}


@pytest.fixture
def saved(tmp_path):
    """Save models and processors into a folder; return its name."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    torch.manual_seed(0)

    def save(*parts):
        for part in parts:
            part.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


@pytest.mark.slow
def test_a_depth_network_gives_metres_for_each_pixel(saved):
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessorPil,
    )

    backbone = Dinov2Config(
        num_hidden_layers=4, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, **_SMALL
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type="metric",
        max_depth=20,
    )
    processor = DPTImageProcessorPil(size={"height": 28, "width": 28})
    name = saved(DepthAnythingForDepthEstimation(config), processor)
    network = DepthNetwork(name)
    depth = network.depth(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8))
    assert depth.shape == (20, 30) and depth.dtype == np.float32
    assert ((depth > 0) & (depth < 20)).all()
    assert DepthNetwork(name)._model is network._model  # the next part loads nothing


@pytest.mark.slow
def test_a_feature_network_gives_a_unit_vector_for_each_patch_in_its_place(saved):
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    model = Dinov2Model(Dinov2Config(num_hidden_layers=1, **_SMALL))
    network = FeatureNetwork(saved(model, BitImageProcessorPil()))
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[:, 40:] = 255
    features = network.features(rgb)
    assert features.shape == (16, 16, 16)
    assert np.allclose(np.linalg.norm(features, axis=-1), 1.0, atol=1e-5)
    left, right = features[:, :8], features[:, 8:]
    across = np.linalg.norm(left.mean((0, 1)) - right.mean((0, 1)))
    assert max(left.std((0, 1)).max(), right.std((0, 1)).max()) < 0.5 * across


@pytest.mark.slow
def test_a_model_that_writes_sees_the_pictures_and_answers_in_its_own_words(saved, monkeypatch):
    name = saved(*_vision_language_model())
    writer = ModelWriter(CaptionConfig(model=name, tries=1))
    seen = []
    generate = writer._model.generate

    def noted(**inputs):
        seen.append(tuple(inputs["pixel_values"].shape))
        return generate(**inputs | {"max_new_tokens": 4})

    monkeypatch.setattr(writer._model, "generate", noted)
    picture = np.full((30, 40, 3), 120, np.uint8)
    answer = writer._answer("Say what happens.", [picture, picture])
    assert seen == [(2, 3, 28, 28)]
    assert "happens" not in answer and len(answer) <= 4
    with pytest.raises(CaptionError, match="JSON object"):
        writer._ask("Say what happens.", [picture])


def _vision_language_model():
    """Return a model of one layer over bytes, and its processor."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    special = ["<pad>", "<image>", "<s>", "</s>"]
    symbols = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        ),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template="{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}",
    )
    text = LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    vision = CLIPVisionConfig(num_hidden_layers=2, intermediate_size=16, **_SMALL)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=1, image_seq_length=4
    )
    return LlavaForConditionalGeneration(config), processor


@pytest.mark.parametrize(
    ("files", "there"),
    [
        (["config.json"], False),
        (["config.json", "preprocessor_config.json"], False),
        (["config.json", "model.safetensors"], False),
        (["config.json", "preprocessor_config.json", "model.safetensors"], True),
    ],
)
def test_a_model_counts_as_cached_only_with_its_weights(tmp_path, monkeypatch, files, there):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--dino/snapshots/abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--dino/refs").mkdir()
    (tmp_path / "models--some--dino/refs/main").write_text("abc")
    for file in files:
        (snapshot / file).write_text("{}")
    assert is_cached("some/dino") is there
