"""Names of vision transformers in google-research/vision_transformer (AugReg) and big_vision: Flax trees in `.npz`.

The rules spell names as vision_transformer does. Its attention and MLP are numbered within the block
(MultiHeadDotProductAttention_1, MlpBlock_3, LayerNorm_2), big_vision's by kind (_0, _0, _1), and big_vision may store
all blocks in one array with a leading axis.
"""

from __future__ import annotations

from protloc_jax.convert.rules import Layout, Rule

_BLOCKS = "backbone/blocks"
_INPUTS = ("query", "key", "value")


def _block(prefix: str) -> tuple[Rule, ...]:
    attention, mlp = f"{prefix}/MultiHeadDotProductAttention_1", f"{prefix}/MlpBlock_3"
    return (
        Rule(f"{_BLOCKS}/norm1/scale", (f"{prefix}/LayerNorm_0/scale",), "vector"),
        Rule(f"{_BLOCKS}/norm1/bias", (f"{prefix}/LayerNorm_0/bias",), "vector"),
        Rule(f"{_BLOCKS}/attn/qkv/kernel", tuple(f"{attention}/{x}/kernel" for x in _INPUTS), "to_heads"),
        Rule(f"{_BLOCKS}/attn/qkv/bias", tuple(f"{attention}/{x}/bias" for x in _INPUTS), "bias_of_heads"),
        Rule(f"{_BLOCKS}/attn/proj/kernel", (f"{attention}/out/kernel",), "from_heads"),
        Rule(f"{_BLOCKS}/attn/proj/bias", (f"{attention}/out/bias",), "vector"),
        Rule(f"{_BLOCKS}/norm2/scale", (f"{prefix}/LayerNorm_2/scale",), "vector"),
        Rule(f"{_BLOCKS}/norm2/bias", (f"{prefix}/LayerNorm_2/bias",), "vector"),
        Rule(f"{_BLOCKS}/mlp/fc1/kernel", (f"{mlp}/Dense_0/kernel",), "matrix"),
        Rule(f"{_BLOCKS}/mlp/fc1/bias", (f"{mlp}/Dense_0/bias",), "vector"),
        Rule(f"{_BLOCKS}/mlp/fc2/kernel", (f"{mlp}/Dense_1/kernel",), "matrix"),
        Rule(f"{_BLOCKS}/mlp/fc2/bias", (f"{mlp}/Dense_1/bias",), "vector"),
    )


FLAX_VIT = Layout(
    "flax_vit",
    rules=(
        Rule("backbone/cls", ("cls",), "rows"),
        Rule("backbone/pos", ("Transformer/posembed_input/pos_embedding",), "rows"),
        Rule("backbone/stem/kernel", ("embedding/kernel",), "kernel"),
        Rule("backbone/stem/bias", ("embedding/bias",), "vector"),
        *_block("Transformer/encoderblock_{n}"),
        *_block("Transformer/encoderblock"),
        Rule("backbone/norm/scale", ("Transformer/encoder_norm/scale",), "vector"),
        Rule("backbone/norm/bias", ("Transformer/encoder_norm/bias",), "vector"),
    ),
    aliases=(
        (r"^pos_embedding$", "Transformer/posembed_input/pos_embedding"),
        (r"(encoderblock(_\d+)?)/MultiHeadDotProductAttention_0/", r"\1/MultiHeadDotProductAttention_1/"),
        (r"(encoderblock(_\d+)?)/MlpBlock_0/", r"\1/MlpBlock_3/"),
        (r"(encoderblock(_\d+)?)/LayerNorm_1/", r"\1/LayerNorm_2/"),
    ),
    extras=(r"(head|pre_logits)/(kernel|bias)",),
    # Flax's own defaults: layer norm with 1e-6, GELU by tanh. Both projects zoom the position table linearly.
    claims={"norm_eps": 1e-6, "mlp": "gelu_tanh", "position": "jax_zoom", "colour": "half"},
    refused=((r"MAPHead_0/.*", "attention pooling"),),
)
