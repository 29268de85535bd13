"""Tiny models of transformers' architectures, and recurrent ones of torch's, with random weights: a maker each."""

import torch
from tools import require_module
from torch import nn

transformers = require_module("transformers")

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
SMALL = dict(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=16,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
TEXT = dict(input_ids=IDS)
BOTH = dict(input_ids=IDS, decoder_input_ids=IDS.flip(1))


def _image(size, seed=1):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def distilbert():
    t = transformers
    c = t.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=16)
    return t.DistilBertForMaskedLM(c), TEXT


def t5():
    t = transformers
    c = t.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    return t.T5ForConditionalGeneration(c), BOTH


def bart():
    t = transformers
    sizes = {f"{side}_{n}": v for side in ("encoder", "decoder") for n, v in (("layers", 1), ("attention_heads", 4))}
    c = t.BartConfig(
        vocab_size=50, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=16, **sizes
    )
    return t.BartForConditionalGeneration(c), BOTH


def opt():
    t = transformers
    c = t.OPTConfig(**{**SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32})
    return t.OPTForCausalLM(c), TEXT


def gpt_neox():
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL)), TEXT


def falcon():
    return transformers.FalconForCausalLM(transformers.FalconConfig(**SMALL)), TEXT


def qwen2():
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL, num_key_value_heads=2)), TEXT


def gemma():
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**SMALL, num_key_value_heads=2, head_dim=8)), TEXT


def mixtral():
    c = transformers.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
    return transformers.MixtralForCausalLM(c), TEXT


def qwen2_moe():
    c = transformers.Qwen2MoeConfig(
        **SMALL,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=48,
    )
    return transformers.Qwen2MoeForCausalLM(c), TEXT


def deepseek_v3():
    c = transformers.DeepseekV3Config(
        **SMALL,
        num_key_value_heads=4,
        moe_intermediate_size=24,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        kv_lora_rank=8,
        q_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
    )
    return transformers.DeepseekV3ForCausalLM(c), TEXT


def gpt_oss():
    c = transformers.GptOssConfig(**SMALL, num_key_value_heads=2, head_dim=8, num_local_experts=4)
    return transformers.GptOssForCausalLM(c), TEXT


def bloom():
    c = transformers.BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4)
    return transformers.BloomForCausalLM(c), TEXT


def whisper():
    t = transformers
    sizes = {f"{side}_{n}": v for side in ("encoder", "decoder") for n, v in (("layers", 1), ("attention_heads", 4))}
    c = t.WhisperConfig(
        vocab_size=50,
        d_model=32,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=8,
        max_source_positions=8,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        **sizes,
    )
    sound = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(1))
    return t.WhisperForConditionalGeneration(c), dict(input_features=sound, decoder_input_ids=IDS)


def wav2vec2():
    t = transformers
    c = t.Wav2Vec2Config(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_stride=(5, 4),
        conv_kernel=(10, 4),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0,
    )
    sound = torch.randn(2, 200, generator=torch.Generator().manual_seed(1))
    return t.Wav2Vec2ForCTC(c), dict(input_values=sound)


def clip():
    t = transformers
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    text = dict(vocab_size=50, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=0, **sizes)
    vision = dict(image_size=16, patch_size=4, **sizes)
    c = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return t.CLIPModel(c), dict(input_ids=IDS, pixel_values=_image(16))


def swin_v2():
    c = transformers.Swinv2Config(
        image_size=16, patch_size=2, embed_dim=16, depths=(1, 1), num_heads=(2, 4), window_size=4
    )
    return transformers.Swinv2ForImageClassification(c), dict(pixel_values=_image(16))


def segformer():
    c = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[16, 32],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=5,
    )
    return transformers.SegformerForSemanticSegmentation(c), dict(pixel_values=_image(16))


def detr():
    t = transformers
    backbone = t.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
    )
    c = t.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        backbone=None,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=5,
        num_labels=3,
    )
    return t.DetrForObjectDetection(c), dict(pixel_values=_image(32))


def deberta_v2():
    c = transformers.DebertaV2Config(
        **SMALL, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], type_vocab_size=0
    )
    return transformers.DebertaV2ForMaskedLM(c), TEXT


def mamba():
    c = transformers.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, state_size=8)
    return transformers.MambaForCausalLM(c), TEXT


def mamba2():
    c = transformers.Mamba2Config(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=2,
        chunk_size=4,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.Mamba2ForCausalLM(c), TEXT


def rwkv():
    c = transformers.RwkvConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    return transformers.RwkvForCausalLM(c), dict(input_ids=IDS, use_cache=False)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.layers = kind(32, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 50)

    def forward(self, input_ids):
        return (self.head(self.layers(self.embed(input_ids))[0]),)


def lstm():
    return Recurrent(nn.LSTM), TEXT


def gru():
    return Recurrent(nn.GRU), TEXT


MAKERS = {
    f.__name__: f
    for f in (
        *(distilbert, t5, bart, opt, gpt_neox, falcon, qwen2, gemma, mixtral, qwen2_moe, deepseek_v3, gpt_oss, bloom),
        *(whisper, wav2vec2, clip, swin_v2, segformer, detr, deberta_v2, mamba, mamba2, rwkv, lstm, gru),
    )
}
