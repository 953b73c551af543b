"""Tiny random models with small tokenizers, built in place: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tracestore.extract.loading import LoadedModel, wrap_model

CORPUS = (
    "The capital of France is Paris. The capital of Italy is Rome. Where is the tower? It is in Paris. "
    "system user assistant tool You are a helpful assistant. What is two plus three? 2 + 3 = 5. the of and to in is it that",
) * 4

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% for call in message.get('tool_calls') or [] %}"
    "{{ '<call>' + call.function.name + ' ' + (call.function.arguments | tojson) + '</call>' }}"
    "{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STRIPPING = CHATML.replace("{{ message['content'] }}", "{{ message['content'] | trim }}")


def byte_level_tokenizer(*, trim_offsets: bool = False, template: str | None = CHATML, vocabulary: int = 420) -> Any:
    """Make a byte-level BPE tokenizer in the manner of GPT-2; `trim_offsets` leaves the leading space out of the offsets."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|end|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>")
    tokenizer.chat_template = template
    return tokenizer


def metaspace_tokenizer(*, end_mark: bool = False) -> Any:
    """Make a tokenizer in the manner of Llama 2: a space is a visible mark, bytes as fallback, `<s>` in front (and `</s>` behind)."""
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False))
    behind = " </s>" if end_mark else ""
    raw.post_processor = processors.TemplateProcessing(single=f"<s> $A{behind}", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tiny_llama(vocabulary: int, *, seed: int = 0, context: int = 128, layers: int = 2) -> Any:
    """Make a random Llama of 32 dimensions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def tiny_loaded(*, tokenizer: Any = None, seed: int = 0, context: int = 128) -> LoadedModel:
    """Give a tiny model, loaded, with a byte-level tokenizer unless another is given."""
    tokenizer = byte_level_tokenizer() if tokenizer is None else tokenizer
    return wrap_model(tiny_llama(len(tokenizer), seed=seed, context=context), tokenizer, model_id="tiny")


def save_tiny(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny model with its tokenizer."""
    tokenizer = byte_level_tokenizer()
    tiny_llama(len(tokenizer), seed=seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def added_word(tokenizer: Any, word: str) -> Any:
    """Add a special token that is also the beginning of ordinary words."""
    tokenizer.add_tokens([AddedToken(word, special=True, normalized=False)], special_tokens=True)
    return tokenizer
